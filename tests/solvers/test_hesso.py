"""HESSO by hand: the fading ends at zero, the score knows who grows, CRIC puts the weights back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.constraints.blocks import Blocks
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers.hesso import Hesso
from secateur.types import Member, Site


def problem(start: Tensor, level: int, steps: int = 10) -> Problem:
    """Columns, of which `level` may stay."""
    rows, cols = start.shape
    term = Term(Site("w", "linear", (rows, cols), (Member("w"),)), Blocks(rows=rows), level, True)
    return Problem({"w": start.clone().requires_grad_()}, (term,), lambda weights, h, t: {"w": level}, steps)


START = torch.tensor([[3.0, 6.0], [4.0, 8.0]])
STILL = torch.zeros(2, 2)


def after(solver: Hesso, p: Problem, *moves: Tensor) -> Tensor:
    with torch.no_grad():
        state = solver.init(p)
        for move in moves:
            p.params["w"] += move
            state = solver.step(state)
    return p.params["w"].detach()


def test_the_fading_ends_at_zero_in_equal_steps() -> None:
    solver = Hesso(periods=1, start=0.1, end=0.5)  # one free step, then a period of four
    for n, share in ((1, 1.0), (2, 0.75), (3, 0.5), (4, 0.25), (5, 0.0), (7, 0.0)):
        w = after(solver, problem(START, 1), *[STILL] * n)
        torch.testing.assert_close(w[:, 0], share * START[:, 0], msg=f"after {n} steps")
        torch.testing.assert_close(w[:, 1], START[:, 1])
    w = after(solver, problem(START, 1), *[STILL] * 5, torch.ones(2, 2))
    assert w[:, 0].tolist() == [0.0, 0.0]  # what is gone stays gone


def test_the_score_by_hand() -> None:
    p = problem(START, 1)
    with torch.no_grad():
        state = Hesso().init(p)
        p.params["w"] += torch.tensor([[0.3, 0.0], [0.4, -1.0]])  # d along x, and with <x, d> = -8
        (found,) = state.scores().values()
    cos = 1 - 8 / (10 * 1)
    terms = torch.tensor([[5.0, 10.0], [2.5, 5.0], [2.0, cos], [2.5, 8.0], [2.5**2 / 2, 32.0]])
    torch.testing.assert_close(found, (terms / terms.norm(dim=1, keepdim=True)).mean(0))


def test_of_equal_units_the_one_that_shrinks_goes() -> None:
    # 1/2 |w - best|^2 with the first column on its way to zero and the second on its way out, both of norm 5 now.
    start, best = torch.tensor([[3.0, 3.0], [4.0, 4.0]]), torch.tensor([[0.0, 6.0], [0.0, 8.0]])
    p, solver = problem(start, 1), Hesso(periods=1, start=0.1, end=0.5)
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(6):
            p.params["w"] -= 0.1 * (p.params["w"] - best)
            state = solver.step(state)
    assert p.params["w"][:, 0].tolist() == [0.0, 0.0]
    assert bool((p.params["w"][:, 1] > 3.0).all())


def test_cric_puts_the_weights_back_and_looks_on_the_way() -> None:
    p, solver = problem(START, 1, 20), Hesso(periods=1, start=0.05, end=0.8, cycles=2, samples=3)
    with torch.no_grad():
        state, seen = solver.init(p), []
        for _ in range(6):
            state = solver.step(state)
            seen.append(float(p.params["w"][0, 0]))
    # Free, then a cycle of three samples that ends where it began; nothing new among the least: no second cycle.
    assert seen[:4] == pytest.approx([3.0, 2.0, 1.0, 3.0])
    assert state.cycle == 2
    assert seen[4] < 3.0  # the period


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="cycles"):
        Hesso(cycles=-1)
