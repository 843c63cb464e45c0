"""`keep_zeros`: the zeros that a net began with stay, whatever a solver exchanges or writes; others get the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur import catalog
from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Constraint, Term
from secateur.errors import RefusedError
from secateur.recipe import Recipe
from secateur.testing.solvers import Case
from secateur.training.phases import Approach, Held, Phase, Snap
from secateur.types import Member, Site

OPTIONS: dict[str, dict[str, Any]] = {
    "evolution": {"trials": 4, "population": 2},
    "random_search": {"draws": 2},
    "rigl": {"every": 2},
    "set": {"every": 2},
    "subp": {"every": 2, "start": 0.0},
    "ast": {"every": 2},
}
START = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
ZERO = torch.rand(8, 8, generator=torch.Generator().manual_seed(4)) < 0.4
LEVEL = 20  # of some 38 that are not zero


class Mixed(Case):
    """Inputs that go together: who solves a layer gives zeros what others would have done."""

    def statistic(self, site: str, name: str) -> Tensor:
        found = super().statistic(site, name)
        return found + 0.5 if name == "input_gram" else found


def case(constraint: Constraint, level: Any) -> Case:
    """A quadratic whose best point has none of the zeros."""
    site = Site("w", "linear", (8, 8), (Member("w"),))
    return Mixed(
        "zeros", {"w": START.masked_fill(ZERO, 0.0)}, (Term(site, constraint, level, True),), lambda k, w: w - 2 * START
    )


def drive(phase: Phase, of: Case, steps: int) -> Tensor:
    """Gradient descent with a little momentum from before; the zeros are looked at after every step."""
    w = phase.params["w"]
    for _ in range(steps):
        w.grad = of.gradient("w", w.detach())
        with torch.no_grad():
            phase.before_step()
            w -= of.lr * w.grad + 0.01
            phase.after_step()
            assert not bool(w[ZERO].any())
            assert not bool(phase.candidate(phase.tracked())["w"][ZERO].any())
    return w


@pytest.mark.parametrize("name", catalog.names("solvers"))
def test_no_solver_brings_them_back_and_the_budget_is_spent(name: str) -> None:
    solver = catalog.load("solvers", name)(**OPTIONS.get(name, {}))
    for of in (case(TopK(), LEVEL), case(Blocks(rows=1, cols=2), 12)):
        if solver.refuses(of.terms[0]):
            continue
        phase = Approach(solver, of.problem(), keep_zeros=True)
        w = drive(phase, of, of.steps)
        with torch.no_grad():
            phase.close()
        assert not bool(w[ZERO].any())
        if isinstance(of.terms[0].constraint, TopK):
            assert int((w != 0).sum()) == LEVEL


def test_without_the_switch_they_come_back() -> None:
    of = case(TopK(), LEVEL)
    phase = Approach(catalog.load("solvers", "rigl")(every=2), of.problem())
    with pytest.raises(AssertionError):
        drive(phase, of, of.steps)


@pytest.mark.parametrize("keep", [True, False])
def test_zeros_inside_a_kept_block_stay_in_the_polish(keep: bool) -> None:
    of = case(Blocks(rows=1, cols=2), 32)
    phase = Held(of.terms, {"w": 32}, of.problem().params, 4, keep_zeros=keep)
    if keep:
        drive(phase, of, 4)
    else:
        with pytest.raises(AssertionError):
            drive(phase, of, 1)


def test_they_stay_in_the_snap_where_the_values_have_a_zero() -> None:
    of = case(Uniform(), 4)
    params = of.problem().params
    phase = Snap(of.terms, {"w": of.terms[0].level}, params, 8, every=1, keep_zeros=True)
    rounds = (params["w"] == 0) & ~ZERO  # to zero today, and yet free
    assert bool(rounds.any())
    assert bool(drive(phase, of, 8)[rounds].any())


@pytest.mark.parametrize("kind", [Held, Snap])
def test_a_resume_knows_which_zeros_they_were(kind: type[Held | Snap]) -> None:
    of = case(Blocks(rows=1, cols=2), 32) if kind is Held else case(Uniform(), 4)

    def begun(start: Tensor) -> Held | Snap:
        params = replace(of, start={"w": start}).problem().params
        return kind(of.terms, {"w": of.terms[0].level}, params, 8, keep_zeros=True)

    phase = begun(START.masked_fill(ZERO, 0.0))
    drive(phase, of, 1)
    tensors, facts = phase.state_dict()
    again = begun(START.masked_fill(ZERO | (START > 1), 0.0))  # more of them are zero by now
    with torch.no_grad():
        again.params["w"].copy_(phase.params["w"])
    again.load_state_dict({k: v.clone() for k, v in tensors.items()}, facts)
    assert torch.equal(drive(phase, of, 4), drive(again, of, 4))


def test_factors_are_refused() -> None:
    site = Site("fc.weight", "linear", (8, 8), (Member("fc.weight"),))
    made = {"constrain": [{"where": site.name, "with": "lowrank", "level": {"rank": 1}}], "budget": {"nbytes": "1MB"}}
    keep = Recipe.from_dict({**made, "solver": {"name": "gradual", "keep_zeros": True}})
    with pytest.raises(RefusedError, match=r"keep_zeros.*lowrank"):
        keep.build_terms([site])
    Recipe.from_dict(made).build_terms([site])
