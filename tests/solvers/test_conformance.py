"""Every solver of the room obeys the laws; solvers that break one are caught."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur import catalog
from secateur.contracts import Problem, Solver
from secateur.solvers._state import State
from secateur.solvers.gradual import Gradual
from secateur.solvers.one_shot import OneShot
from secateur.solvers.sr_ste import SrSte
from secateur.testing.solvers import check_solver
from secateur.types import Solution

# Beside the defaults: short rounds, so that the suite sees several; points on the way; the penalty in the loss.
SHORT: dict[str, dict[str, Any]] = {
    "admm": {"round_steps": 3},
    "ast": {"every": 3, "points": (0.3, 0.7)},
    "gradual": {"every": 2, "stages": 2},
    "half_space": {"periods": 2, "eps": 0.5},
    "hesso": {"cycles": 2, "samples": 2},
    "lottery": {"rounds": 2, "rewind": 0.4},
    "mask_sparsity": {"start": 0.3},
    "meta_ticket": {"inner": 2, "every": 1, "settle": 0.7},
    "one_shot": {"points": (0.3, 0.7)},
    "reweighted": {"rounds": 2, "form": "square", "bounded": False},
    "rigl": {"every": 3},
    "set": {"every": 4},
    "sr_ste": {"every": 4},
    "ssvi": {"every": 3, "sigma": 0.2, "kl": 1e-4},
    "subp": {"every": 4, "start": 0.0},
    "turbo_vbi": {"every": 3, "settle": 0.7, "sigma": 0.05, "kl": 1e-4},
    "wgsef": {"every": 2, "sizes": True},
}
# Searches that take long before the first step.
BRIEF: dict[str, dict[str, Any]] = {"evolution": {"trials": 4, "population": 2}, "random_search": {"draws": 2}}


@pytest.mark.parametrize("name", catalog.names("solvers"))
def test_laws(name: str) -> None:
    cls = catalog.load("solvers", name)
    check_solver(cls, cls(**BRIEF[name]) if name in BRIEF else None)


@pytest.mark.parametrize("name", SHORT)
def test_laws_with_short_rounds(name: str) -> None:
    check_solver(catalog.load("solvers", name)(**SHORT[name]))


def test_laws_with_the_penalty_in_the_loss() -> None:
    check_solver(catalog.load("solvers", "admm")(round_steps=3, end=1.0, metric="weight", proximal=False))


@dataclass(frozen=True)
class Regrows(Gradual):
    """Steps between two prunings are not held."""

    def finish(self, state: State) -> Solution:
        return state.solution()

    def step(self, state: State) -> State:
        held, state.frozen = state.frozen, None
        state = super().step(state)
        state.frozen = state.frozen or held
        return state


class Forgets(State):
    """A structure that is not saved."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state_dict()
        return tensors, {**facts, "held": False}


@dataclass(frozen=True)
class Forgetful(OneShot):
    def init(self, problem: Problem) -> State:
        state = Forgets(problem)
        state.land(1.0)
        return state


@dataclass(frozen=True)
class WrongSlope(SrSte):
    """The penalty sees the latent weights as variables, which they are not, and half of what is shown."""

    decay: float = 0.5

    def penalty(self, state: Any) -> Tensor | float:
        return super().penalty(state) + sum(float(p.detach().sum()) for p in state.problem.params.values())


@dataclass(frozen=True)
class Smallest(OneShot):
    """Keeps the smallest weights: feasible, resumable, and worse than one-shot."""

    def init(self, problem: Problem) -> State:
        state = State(problem)
        state.land(1.0, {k: 1.0 / w.where(w.abs() > 1e-3, torch.full_like(w, 1e-3)) for k, w in state.live.items()})
        return state


@dataclass(frozen=True)
class Peeks(OneShot):
    """Looking at the state moves it."""

    def init(self, problem: Problem) -> State:
        class Moves(State):
            def candidate(self, weights: Any) -> dict[str, Tensor]:
                for w in self.live.values():
                    w.mul_(0.5)
                return super().candidate(weights)

        state = Moves(problem)
        state.land(1.0)
        return state


@dataclass(frozen=True)
class Beside(OneShot):
    """A looser point that another choice of weights gave."""

    def finish(self, state: State) -> Solution:
        looser = Solution({k: (w == 0) * 1.0 for k, w in state.live.items()}, dict.fromkeys(state.levels))
        return replace(state.solution(), points=(looser,))


@dataclass(frozen=True)
class Dense(OneShot):
    """Looser points that say they are as tight as the answer."""

    def finish(self, state: State) -> Solution:
        whole = Solution({k: w + 1.0 for k, w in state.live.items()}, dict(state.levels))
        return replace(state.solution(), points=(whole,))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Regrows(), "no members"),
        (Forgetful(), "stopped after step"),
        (WrongSlope(), "finite differences"),
        (Smallest(), "one-shot"),
        (Peeks(), "moves weights"),
        (Beside(), "not inside the looser point's"),
        (Dense(), "no members"),
    ],
)
def test_a_broken_solver_is_caught(solver: Solver, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_solver(solver)
