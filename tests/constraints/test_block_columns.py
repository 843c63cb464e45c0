"""Block columns: a few outputs at one input; the same number in every block, or the best of all."""

from typing import Any

import pytest
import torch
import written
from test_blocks import number

from secateur.constraints.block_columns import BlockColumns
from secateur.constraints.blocks import Blocks
from secateur.errors import UsageError
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    rows = number(masks.shape[1], constraint.rows, constraint.groups)
    cols = number(masks.shape[2], constraint.cols if constraint.per_block else 10**6, constraint.taps)
    counts: Any = {}
    for i in set(rows):
        for j, block in enumerate(cols):
            pool = (i, block) if constraint.per_block else 0
            used = masks[:, [r for r, at in enumerate(rows) if at == i], j].any(axis=1)
            counts[pool] = counts.get(pool, 0) + used.astype(int)
    return sum(c > level for c in counts.values()) == 0


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (
        BlockColumns(rows=2),
        BlockColumns(rows=2, cols=2, per_block=True),
        BlockColumns(rows=2, cols=2, per_block=True, groups=2),
    )
]


def test_each_block_keeps_its_own_best_columns() -> None:
    w = torch.tensor([[9.0, 8.0, 1.0, 2.0], [9.0, 8.0, 1.0, 2.0]])
    free, even = BlockColumns(rows=2), BlockColumns(rows=2, cols=2, per_block=True)
    assert (free.project(w, 2)[0] != 0).tolist() == [True, True, False, False]
    assert (even.project(w, 1)[0] != 0).tolist() == [True, False, False, True]
    assert even.distance(w)(1) == 2 * (64 + 1)
    assert even.levels((4, 8)) == range(3)

    class OnePool(BlockColumns):
        _pools = property(lambda self: lambda shape: None)

    with pytest.raises(AssertionError):
        check_constraint(OnePool(rows=2, cols=2, per_block=True), oracle=brute_force.Supports(rule))


def test_over_the_matrix_they_are_blocks_of_one_input() -> None:
    w = torch.randn(10, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BlockColumns(rows=4).project(w, 7), Blocks(rows=4, cols=1).project(w, 7))
    assert BlockColumns(rows=4).packing((12, 12), 7).pattern == "4x1"


def test_recurrent_gates_are_rows_like_any_other() -> None:
    """An LSTM's weight_hh, 4 gates x 4 units: bands of four outputs are the gates."""
    own = BlockColumns(rows=4, cols=4, per_block=True)
    z = own.project(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), 2)
    assert (z.reshape(4, 4, 4) != 0).any(1).sum(1).tolist() == [2] * 4


def test_options() -> None:
    with pytest.raises(UsageError, match="block_columns: rows is 0; 1 or more"):
        BlockColumns(rows=0)


@pytest.mark.parametrize("columns", [BlockColumns(), BlockColumns(4, 32, per_block=True), BlockColumns(16)])
def test_the_file_stores_them_at_the_price_that_is_told(columns: BlockColumns) -> None:
    written.check_estimate(columns, written.DENSE)
    written.check_estimate(columns, written.CONV)
