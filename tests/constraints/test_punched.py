"""Punched: the same taps of all kernels in a block of outputs x inputs."""

from typing import Any

import pytest
import torch
import written
from test_blocks import number

from secateur.constraints.blocks import Blocks
from secateur.constraints.punched import Punched
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    rows = number(masks.shape[1], constraint.rows, constraint.groups)
    n_in = max(masks.shape[2] // constraint.taps, 1)
    counts: Any = {}
    for i in set(rows):
        for tap in range(0, masks.shape[2], n_in):
            for first in range(0, n_in, constraint.cols):
                pool = (i, first) if constraint.per_block else 0
                cols = range(tap + first, min(tap + first + constraint.cols, tap + n_in))
                inside = masks[:, [r for r, at in enumerate(rows) if at == i]][:, :, list(cols)]
                counts[pool] = counts.get(pool, 0) + inside.any(axis=(1, 2)).astype(int)
    return sum(c > level for c in counts.values()) == 0


class Whole(brute_force.Supports):
    """Only matrices that have all taps of every input: others are none of a layer with a kernel."""

    def best(self, constraint, weight, level, h):
        return super().best(constraint, weight, level, h) if weight.shape[1] % constraint.taps == 0 else None


LAWS = [
    (constraint, Whole(rule))
    for constraint in (
        Punched(rows=2, cols=1),
        Punched(rows=1, cols=2, taps=2),
        Punched(rows=1, cols=1, taps=3, per_block=True),
        Punched(rows=2, cols=1, taps=3, per_block=True),
    )
]


def test_each_block_keeps_its_own_places() -> None:
    """One output, two inputs at three taps in blocks of one input; columns (tap, input)."""
    even = Punched(rows=1, cols=1, per_block=True).on(written.site((1, 2, 3, 1)))
    w = torch.tensor([[9.0, 1.0, 8.0, 3.0, 7.0, 2.0]])
    assert even.project(w, 1).tolist() == [[9.0, 0.0, 0.0, 3.0, 0.0, 0.0]]
    assert even.levels((1, 6)) == range(4)
    both = Punched(rows=1, cols=2, per_block=True).on(written.site((1, 2, 3, 1)))
    assert both.project(w, 1).tolist() == [[9.0, 1.0, 0.0, 0.0, 0.0, 0.0]]

    class OnePool(Punched):
        _pools = property(lambda self: lambda shape: None)

    with pytest.raises(AssertionError):
        check_constraint(OnePool(rows=1, cols=1, taps=3, per_block=True), oracle=Whole(rule))


def test_over_the_layer_they_are_blocks_at_one_tap() -> None:
    w = torch.randn(4, 18, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Punched(2, 2, taps=9).project(w, 7), Blocks(2, 2, taps=9).project(w, 7))
    assert Punched(2, 2, taps=9).parse_level({"places": 5}, (4, 18)) == 5


@pytest.mark.parametrize("punched", [Punched(), Punched(per_block=True), Punched(4, 4, per_block=True)])
def test_the_file_stores_them_at_the_price_that_is_told(punched: Punched) -> None:
    written.check_estimate(punched, written.CONV, sparsities=(0.5, 0.8) if punched.per_block else written.ZEROS)
