"""Columns: one position of all filters, in each group of a grouped convolution its own."""

import pytest
import torch
import written

from secateur.constraints.columns import Columns
from secateur.errors import ConstraintError
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    length = max(masks.shape[1] // constraint.groups, 1)
    used = [masks[:, i : i + length].any(axis=1) for i in range(0, masks.shape[1], length)]
    return sum(u.sum(axis=1) for u in used) <= level


LAWS = [(Columns(), brute_force.Supports(rule)), (Columns(groups=2), brute_force.Supports(rule))]


def test_the_norm_of_the_whole_column_decides() -> None:
    w = torch.tensor([[2.0, 3.0, 0.0], [2.0, 0.0, 1.0]])  # squares 8, 9, 1; sums 4, 3, 1
    assert Columns().project(w, 1).tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]
    heavy = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 20.0]])
    assert Columns().project(w, 1, heavy).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert Columns().distance(w)(1) == 9.0


def test_a_position_is_an_input_at_a_tap() -> None:
    """Two filters of one input, 1 x 3: of the three positions two stay, of both filters."""
    w = torch.tensor([1.0, 0.1, 2.0, 3.0, 0.1, 0.0]).reshape(2, 1, 1, 3)
    z, _, _ = written.projected(Columns(), (2, 1, 1, 3), 0.5)
    assert [int(x) for x in (z != 0).any(0).flatten()] == [int(x) for x in (z != 0).all(0).flatten()]
    kept = Columns().project(w.reshape(2, 3), 2)
    assert (kept != 0).tolist() == [[True, False, True], [True, False, False]]
    assert Columns().freeze(kept, 2).project(torch.ones(2, 3)).tolist() == [[1.0, 0.0, 1.0]] * 2


def test_each_group_of_filters_has_columns_of_its_own() -> None:
    own = Columns().on(written.site((4, 1, 1, 2), groups=2))
    assert own == Columns(groups=2)
    w = torch.tensor([[1.0, 5.0], [1.0, 5.0], [4.0, 1.0], [4.0, 1.0]])
    assert (own.project(w, 2) != 0).tolist() == [[False, True], [False, True], [True, False], [True, False]]

    class Shared(Columns):
        _bands = property(lambda self: Columns()._bands)

    with pytest.raises(AssertionError):
        check_constraint(Shared(groups=2), oracle=brute_force.Supports(rule))


def test_levels() -> None:
    assert Columns().parse_level({"columns": 3}, (8, 6)) == 3
    assert Columns().parse_level({"sparsity": 0.75}, (8, 4)) == 1
    assert Columns().at_tightness((4, 16), 4, 0.5) == 8
    with pytest.raises(ConstraintError, match=r"columns: columns is 9; 0..6 is possible here"):
        Columns().parse_level({"columns": 9}, (8, 6))


@pytest.mark.parametrize("shape", [written.DENSE, written.CONV])
def test_the_file_stores_them_at_the_price_that_is_told(shape: tuple[int, ...]) -> None:
    written.check_estimate(Columns(), shape)
    written.check_estimate(Columns(), written.GROUPED, groups=2)
