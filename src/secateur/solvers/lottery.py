"""Lottery tickets: train, prune, go back to the weights of an early moment; round after round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._stages import plan
from secateur.solvers._state import State
from secateur.types import Solution, Stage


@dataclass(frozen=True)
class Lottery(Solver):
    """Iterative magnitude pruning with rewinding: `rounds` times train, prune a little tighter, rewind what is left.

    The steps are shared by rounds + 1 trainings of equal length: the first is of the dense net, the last of the ticket
    that is the answer; after each of the others what stays is chosen by today's weights, and every parameter goes back
    to its value of an early moment. Under a given count the same part goes every time. The learning rate restarts
    with each training; the optimizer's moments go on, and fade within the warm-up.

    The early moment is the start of the approach (with `solver.from_scratch` that is the net before any training), or
    `rewind` of the first training later.

    Args:
        rounds: prunings.
        rewind: share of the first training after which weights are remembered, below 1.
        back_to: `early`; for controls `shuffled` (the early values of each weight at other places: the same
            distribution, another draw) or `trained` (nothing is rewound but the learning rate).
    Reference: Frankle & Carbin, ICLR 2019, arXiv:1803.03635; Frankle et al., ICML 2020, arXiv:1912.05671 (late
        rewinding); Renda et al., ICLR 2020, arXiv:2003.02389 (learning rate alone).
    """

    rounds: int = 4
    rewind: float = 0.0
    back_to: Literal["early", "shuffled", "trained"] = "early"
    reference: ClassVar[str] = "Frankle & Carbin, ICLR 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671"

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 <= self.rewind < 1:
            raise UsageError(
                f"solver lottery: rounds={self.rounds}, rewind={self.rewind}; rounds >= 1, 0 <= rewind < 1 needed"
            )
        if self.back_to not in ("early", "shuffled", "trained"):
            raise UsageError(f"solver lottery: back_to={self.back_to!r}; early, shuffled or trained is needed")

    def refuses(self, term: Term) -> str | None:
        """What is no support: early weights inside other factors are another net."""
        support = term.constraint.before(Stage.VALUES, None)
        if support is None or support[0].stage == Stage.SUPPORT:
            return None
        return f"lottery rewinds weights inside a support, and {term.constraint.name} is none"

    def init(self, problem: Problem) -> _State:
        """Nothing is pruned yet."""
        return _State(problem, plan(self.rounds + 1, (), problem.total_steps))

    def step(self, state: _State) -> _State:
        """Remember, or prune and rewind, when it is time; else hold the structure."""
        state.advance()
        if state.round_changed:
            state.done = state.plan.index(state.stage) / self.rounds
            state.land(state.done)
            if self.back_to != "trained":
                state.show(state.candidate(state.early if self.back_to == "early" else state.shuffled()))
        else:
            state.hold()
        if state.n == round(self.rewind * state.plan[0].length):
            state.early = {k: w.clone() for k, w in state.live.items()}
        return state

    def finish(self, state: _State) -> Solution:
        """The ticket, trained as far as it is (where the run was too short for all rounds, pruned at once)."""
        if state.done < 1.0:
            state.land(1.0)
        return state.solution()


@dataclass
class _State(State):
    """With the parameters of the early moment, and the tightness of the last pruning."""

    early: dict[str, Tensor] = field(default_factory=dict)
    done: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.early = self.early or {k: w.clone() for k, w in self.live.items()}

    def shuffled(self) -> dict[str, Tensor]:
        """The early weights; those that a term holds at other places, drawn once for a run."""
        held = {m.param for t in self.problem.terms for m in t.site.members}
        draws = torch.Generator().manual_seed(self.problem.seed)
        return {
            k: w.flatten()[torch.randperm(w.numel(), generator=draws).to(w.device)].view_as(w) if k in held else w
            for k, w in self.early.items()
        }
