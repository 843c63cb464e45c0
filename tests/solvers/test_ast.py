"""AST by hand: whose turn it is, what waits, and gradients that agree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tests.solvers.one_weight import problem, step

from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.errors import UsageError
from secateur.solvers.ast import AST, agreeing
from secateur.types import Level, Member, Site

START = torch.tensor([[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])


def test_opposed_gradients_agree_afterwards() -> None:
    g, before = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    corrected = agreeing(g, before)
    torch.testing.assert_close(corrected, torch.tensor([1.5, -1.5, 0.0]))
    assert float((corrected * before).sum()) >= -1e-6
    assert torch.equal(agreeing(-g, before), -g)
    assert torch.equal(agreeing(g, torch.zeros(3)), g)


def test_levels_take_turns_and_what_is_outside_waits() -> None:
    solver = AST(points=(0.5,), every=2, part=0.0, ramp=0.2)
    p = problem(START, TopK(), 2, 10)
    with torch.no_grad():
        state = solver.init(p)
    for _ in range(2):
        state = step(solver, p, state, torch.zeros(1, 8), 0.1)
    assert p.params["w"].tolist() == [[8.0, 7.0, 6.0, 5.0, 0.0, 0.0, 0.0, 0.0]]  # the looser level's turn: 4 of 8
    state = step(solver, p, state, torch.ones(1, 8), 1.0)
    assert p.params["w"].tolist() == [[7.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]  # the tighter one's
    state = step(solver, p, state, torch.ones(1, 8), 1.0)
    assert p.params["w"].tolist() == [[6.0, 5.0, 5.0, 4.0, 0.0, 0.0, 0.0, 0.0]]  # two have waited
    with torch.no_grad():
        answer = solver.finish(state)
    assert answer.weights["w"].tolist() == [[6.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert [q.weights["w"].tolist() for q in answer.points] == [[[6.0, 5.0, 5.0, 4.0, 0.0, 0.0, 0.0, 0.0]]]


def test_a_step_is_corrected_against_the_one_before_in_its_turn() -> None:
    solver = AST(points=(0.5,), every=2, part=0.0, ramp=0.2)
    p = problem(START, TopK(), 2, 10)
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(2):
            state = step(solver, p, state, torch.zeros(1, 8), 0.1)
        w = p.params["w"]
        for gradient, seen in (
            ([1.0, 1.0, 3.0, 0.0], [1.0, 1.0, 3.0, 0.0]),  # the first of a turn stays as it is
            ([1.0, -2.0, 0.0, 0.0], [1.5, -1.5, 0.0, 0.0]),  # against (1, 1), what of it the tight level has
            ([-1.0, -1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0]),  # a new turn
        ):
            w.grad = torch.tensor([gradient + [9.0] * 4])
            solver.before_step(state)
            torch.testing.assert_close(w.grad, torch.tensor([seen + [0.0] * 4]))
            state = solver.step(state)


def test_gradients_choose_inside_the_level_before() -> None:
    solver = AST(points=(0.5,), every=5, part=0.8, ramp=0.5)
    p = problem(START, TopK(), 2, 20)
    with torch.no_grad():
        state = solver.init(p)
    for _ in range(5):
        state = step(solver, p, state, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]]), 0.0)
    # Half the ramp: tightness 0.4375 and 0.875 keep 5 and 3; 0.4 of each, two and one, give way to the last and, as no
    # gradient asks for another, to the first free one; the tight level may take the last one, for the loose one has it.
    assert state.depth["w"].tolist() == [[2, 2, 1, 1, 0, 0, 0, 2]]


@dataclass(frozen=True)
class Sudden(TopK):
    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        return level if tightness >= 1.0 else None


def test_a_looser_level_may_leave_a_site_dense() -> None:
    solver, p = AST(points=(0.5,), every=2, ramp=0.2), problem(START, Sudden(), 2, 10)
    with torch.no_grad():
        state = solver.init(p)
    for _ in range(3):
        state = step(solver, p, state, torch.zeros(1, 8), 0.1)
    with torch.no_grad():
        answer = solver.finish(state)
    assert answer.points[0].weights["w"].count_nonzero() == 8
    assert answer.weights["w"].tolist() == [[8.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_blocks_nest_and_one_level_is_single_sparse_training() -> None:
    g = torch.Generator().manual_seed(0)
    for points, turns in (((0.3, 0.6), 3), ((), 1)):
        solver, p = AST(points=points, every=3), problem(torch.randn(8, 8, generator=g), Blocks(rows=2), 4, 30)
        with torch.no_grad():
            state = solver.init(p)
        for _ in range(30):
            state = step(solver, p, state, torch.randn(8, 8, generator=g), 0.05)
            assert state.turn < turns
        with torch.no_grad():
            answer = solver.finish(state)
        assert len(answer.points) == turns - 1
        assert int(answer.weights["w"].count_nonzero()) == 8
        assert state.last == {}


def test_supports_that_need_not_nest_are_refused() -> None:
    from secateur.constraints.patterns import Patterns

    term = Term(Site("w", "conv", (4, 4, 3, 3), (Member("w"),)), Patterns())
    assert "nest" in str(AST().refuses(term))


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="points"):
        AST(points=(0.5, 0.2))
