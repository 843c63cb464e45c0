"""Half-space steps by hand: the push, the test, and that a zero unit stays."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.one_weight import moved, problem
from torch import Tensor

from secateur.constraints.blocks import Blocks
from secateur.errors import UsageError
from secateur.solvers._periods import Periods
from secateur.solvers.half_space import HalfSpace

# Columns of norm 5 and 50, of which one may stay; one period of five steps from the second step on.
START = torch.tensor([[3.0, 30.0], [4.0, 40.0]])


def after(solver: HalfSpace, *moves: Tensor) -> Tensor:
    """The weights after these steps of an optimizer; ten are planned."""
    return moved(solver, problem(START, Blocks(rows=2), 1, 10), *moves)


def solver(**options: float) -> HalfSpace:
    return HalfSpace(periods=1, start=0.1, end=0.6, **options)  # type: ignore[arg-type]


STILL = torch.zeros(2, 2)


def test_the_push_by_hand() -> None:
    assert torch.equal(after(solver(), STILL), START)  # nothing goes before `start`
    # Five steps: a fifth of the norm 5 goes in each.
    torch.testing.assert_close(after(solver(), STILL, STILL), torch.tensor([[2.4, 30.0], [3.2, 40.0]]))
    # A step of 2 along x is answered with amplify x 2 = 4, one of 9 with most x 1 = 10; one that shrinks with 1.
    along = torch.tensor([[0.6, 0.0], [0.8, 0.0]])
    for move, norm in ((2.0, 5 + 2 - 4), (9.0, 5 + 9 - 10), (-1.0, 5 - 1 - 1)):
        w = after(solver(amplify=2.0, most=10.0), STILL, move * along)
        torch.testing.assert_close(w[:, 0], norm * along[:, 0])


def test_a_unit_that_leaves_its_half_space_is_zero_for_good() -> None:
    across = torch.tensor([[-3.3, 0.0], [-4.4, 0.0]])
    w = after(solver(), STILL, across, torch.ones(2, 2))
    assert w[:, 0].tolist() == [0.0, 0.0]
    assert w[:, 1].tolist() == [31.0, 41.0]
    # Half of its length left: zero only where eps asks for more than that.
    half = torch.tensor([[-0.9, 0.0], [-1.2, 0.0]])
    assert after(solver(eps=0.4), STILL, half)[:, 0].tolist() == pytest.approx([1.5, 2.0])
    assert after(solver(eps=0.6), STILL, half)[:, 0].tolist() == [0.0, 0.0]


def test_all_that_goes_arrives_where_the_loss_is_quiet() -> None:
    w = after(solver(), *[STILL] * 7)
    assert w[:, 0].tolist() == [0.0, 0.0]
    assert w[:, 1].tolist() == [30.0, 40.0]


def test_periods() -> None:
    p = Periods.over(100, 0.1, 0.6, 5)
    assert (p.start, p.n, p.length) == (10, 5, 10)
    assert [p.place(n) for n in (9, 10, 59, 60)] == [(-1, 0), (0, 0), (4, 9), (5, 0)]
    assert Periods.over(3, 0.1, 0.6, 5).n == 1
    assert Periods.over(0, 0.1, 0.6, 5).length == 1
    assert p.between(30, p.end) == Periods(30, 5, 6)
    assert p.between(57, p.end) == Periods(57, 3, 1)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="eps"):
        HalfSpace(eps=1.0)
    with pytest.raises(UsageError, match="start"):
        HalfSpace(start=0.9)
