"""Sparse connectivity learning by hand: who moves, who waits, who comes back; and what all learned masks refuse."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.small import problem, step

from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.errors import UsageError
from secateur.recipe import build_constraint
from secateur.solvers.abp import Abp
from secateur.solvers.gumbel import Gumbel
from secateur.solvers.pbt import Pbt
from secateur.solvers.scl import Scl
from secateur.solvers.sspq import Sspq
from secateur.types import Member, Site

START = torch.tensor([[4.0, 3.0, 2.0, 1.0]])


def test_a_mask_that_has_learned_nothing_is_the_projection() -> None:
    p, solver = problem(START, 2, 4), Scl(rate=0.0, every=1)
    state = solver.init(p)
    assert torch.equal(p.params["w"].detach(), START)  # dense until the first choice
    torch.testing.assert_close(state.score["w"], (START.square() / START.square().mean()).log())
    state = step(solver, p, state, torch.zeros(1, 4))
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]


def test_kept_weights_move_pruned_ones_wait_and_scores_follow_the_gain() -> None:
    p, solver = problem(START, 2, 8), Scl(rate=2.0, every=1)
    state = step(solver, p, solver.init(p), torch.zeros(1, 4))
    gradient = torch.tensor([[1.0, -1.0, -2.0, 3.0]])
    state = step(solver, p, state, gradient)
    torch.testing.assert_close(state.latent["w"], torch.tensor([[3.9, 3.1, 2.0, 1.0]]))
    gain = -gradient * START
    moved = 2.0 / 8 * gain / gain.square().mean().sqrt()
    torch.testing.assert_close(state.learned["w"], moved)


def test_gains_are_balanced_in_each_output() -> None:
    p, solver = problem(torch.ones(2, 4), 8, 8), Scl(rate=8.0, every=100, settle=1.0)
    state = step(solver, p, solver.init(p), torch.tensor([[1.0, -1.0, 1.0, 1.0], [1e-6, 1e-6, -1e-6, 1e-6]]))
    torch.testing.assert_close(state.learned["w"], torch.tensor([[-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, -1.0]]))


def test_a_pruned_weight_comes_back_where_it_was_and_stays_away_when_settled() -> None:
    missed = torch.tensor([[0.0, 0.0, -1.0, 0.0]])  # the loss wants the third weight
    p, solver = problem(START, 2, 40), Scl(rate=8.0, every=1, ramp=0.25, settle=0.5)
    state = solver.init(p)
    for _ in range(20):
        state = step(solver, p, state, missed, 0.0)
    assert p.params["w"].tolist() == [[4.0, 0.0, 2.0, 0.0]]
    for _ in range(20):
        state = step(solver, p, state, torch.tensor([[0.0, -1.0, 1.0, 0.0]]), 0.0)
    assert p.params["w"].tolist() == [[4.0, 0.0, 2.0, 0.0]]
    assert solver.finish(state).weights["w"].tolist() == [[4.0, 0.0, 2.0, 0.0]]


def test_weights_whose_best_is_zero_never_rise() -> None:
    best = torch.tensor([[0.0, 5.0, 0.0, 1.5]])
    p, solver = problem(START, 4, 20), Scl(every=100)
    state = solver.init(p)
    for _ in range(10):
        before = state.learned["w"]
        state = step(solver, p, state, p.params["w"].detach() - best)
        assert bool((state.learned["w"] <= before)[best == 0].all())


def test_a_loop_that_emptied_its_gradients_is_told() -> None:
    p, solver = problem(START, 2, 4), Scl()
    state = solver.init(p)
    with pytest.raises(UsageError, match=r"w: .*step\(\) before optimizer.zero_grad"):
        solver.step(state)


@pytest.mark.parametrize("solver", [Scl(), Pbt(), Abp(), Gumbel(), Sspq()])
def test_forms_are_refused_and_choices_of_weights_are_not(solver: Scl) -> None:
    site = Site("w", "linear", (8, 8), (Member("w"),))
    assert "lowrank" in str(solver.refuses(Term(site, LowRank())))
    assert solver.refuses(Term(site, TopK())) is None
    assert solver.refuses(Term(site, build_constraint(["topk", "uniform"]))) is None


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match=r"solver scl: rate=-1.*rate >= 0"):
        Scl(rate=-1)
    with pytest.raises(UsageError, match=r"ramp=0.9, settle=0.5"):
        Pbt(ramp=0.9, settle=0.5)
