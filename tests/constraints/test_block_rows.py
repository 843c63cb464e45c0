"""Block rows: one output at a few inputs; the same number in every block, or the best of all."""

from typing import Any

import pytest
import torch
import written
from test_blocks import number

from secateur.constraints.block_rows import BlockRows
from secateur.constraints.blocks import Blocks
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    rows = number(masks.shape[1], constraint.rows, constraint.groups)
    cols = number(masks.shape[2], constraint.cols, constraint.taps)
    counts: Any = {}
    for i, band in enumerate(rows):
        for block in set(cols):
            pool = (band, block) if constraint.per_block else 0
            used = masks[:, i, [c for c, at in enumerate(cols) if at == block]].any(axis=1)
            counts[pool] = counts.get(pool, 0) + used.astype(int)
    return sum(c > level for c in counts.values()) == 0


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (BlockRows(cols=2), BlockRows(rows=2, cols=2, per_block=True), BlockRows(2, 1, True, taps=2))
]


def test_each_block_keeps_its_own_best_rows() -> None:
    w = torch.tensor([[9.0, 9.0], [8.0, 8.0], [1.0, 1.0], [2.0, 2.0]])
    free, even = BlockRows(cols=2), BlockRows(rows=2, cols=2, per_block=True)
    assert (free.project(w, 2)[:, 0] != 0).tolist() == [True, True, False, False]
    assert (even.project(w, 1)[:, 0] != 0).tolist() == [True, False, False, True]

    class OnePool(BlockRows):
        _pools = property(lambda self: lambda shape: None)

    with pytest.raises(AssertionError):
        check_constraint(OnePool(rows=2, cols=2, per_block=True), oracle=brute_force.Supports(rule))


def test_over_the_matrix_they_are_blocks_of_one_output() -> None:
    w = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BlockRows(cols=4).project(w, 7), Blocks(rows=1, cols=4).project(w, 7))


def test_a_cut_of_whole_blocks_is_survived() -> None:
    even = BlockRows(rows=2, cols=2, per_block=True)
    assert even.after_cut((4, 4), [2, 3], [0, 1, 2, 3], 1) == (even, 1)
    assert even.after_cut((4, 4), [1, 2, 3], [0, 1, 2, 3], 1) is None  # rows would change their blocks


@pytest.mark.parametrize("rows", [BlockRows(), BlockRows(32, 4, per_block=True)])
def test_the_file_stores_them_at_the_price_that_is_told(rows: BlockRows) -> None:
    written.check_estimate(rows, written.DENSE)
    written.check_estimate(rows, written.CONV)
