"""Crossbar: columns, rows and arrays of memory cells; at edges smaller, over groups never; what the meter counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.budget import kinds
from secateur.constraints.crossbar import Crossbar
from secateur.errors import UsageError
from secateur.formats import measure
from secateur.recipe import build_constraint
from secateur.testing import brute_force
from secateur.types import Inventory, Member, Site, Weight


def rule(constraint, masks, level):
    """Counted array by array from the definition."""
    _, rows, cols = masks.shape
    height = max(rows // constraint.groups, 1)
    counts = []
    for group in range(0, rows, height):
        for top in range(group, min(group + height, rows), constraint.rows):
            bottom = min(top + constraint.rows, group + height)
            for left in range(0, cols, constraint.cols):
                array = masks[:, top:bottom, left : left + constraint.cols]
                if constraint.cut == "arrays":
                    counts.append(array.any(axis=(1, 2)).astype(int))
                else:
                    counts.append(array.any(axis=1 if constraint.cut == "columns" else 2).sum(axis=1))
    each = np.array(counts)
    return each.max(axis=0) <= level if constraint.per_block else each.sum(axis=0) <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (
        Crossbar(2, 2),
        Crossbar(2, 2, cut="rows"),
        Crossbar(1, 2, cut="arrays"),
        Crossbar(2, 2, per_block=True),
        Crossbar(2, 2, cut="rows", per_block=True),
        Crossbar(2, 3, taps=2),
        Crossbar(1, 2, groups=2),
    )
]


def test_units_of_each_cut() -> None:
    """Arrays of 2 x 2 over 2 x 4: energies of columns 10, 5, 13, 2; of rows in arrays 5, 13 | 10, 5; arrays 15, 15."""
    w = torch.tensor([[1.0, 2.0, 3.0, 1.0], [3.0, 1.0, 2.0, 1.0]])
    assert Crossbar(2, 2).project(w, 1).tolist() == [[0, 0, 3, 0], [0, 0, 2, 0]]
    assert Crossbar(2, 2, cut="rows").project(w, 2).tolist() == [[0, 0, 3, 1], [3, 1, 0, 0]]  # 10 and 10
    assert Crossbar(2, 2, cut="arrays").project(w, 1).tolist() == [[1, 2, 0, 0], [3, 1, 0, 0]]  # equal: the left one
    assert Crossbar(2, 2, per_block=True).project(w, 1).tolist() == [[1, 0, 3, 0], [3, 0, 2, 0]]


def test_arrays_run_on_over_taps_and_not_over_groups() -> None:
    """Three inputs at two taps are six columns: arrays of 4 and 2."""
    conv = Crossbar(2, 4, cut="arrays").on(Site("w", "conv", (4, 3, 2, 1), (Member("w"),)))
    assert conv.taps == 2
    assert len(conv.levels((4, 6))) == 5
    grouped = Crossbar(2, 4, cut="arrays").on(Site("w", "conv", (6, 3, 1, 1), (Member("w"),), groups=2))
    assert len(grouped.levels((6, 3))) == 5  # 2 + 1 outputs in each group


def test_the_meter_counts_what_the_set_leaves() -> None:
    """128 x 512 are eight arrays of 64 x 128."""
    w = torch.randn(128, 512, generator=torch.Generator().manual_seed(0))
    site = Site("w", "linear", (128, 512), (Member("w"),))
    meter = kinds.meter("crossbars")

    def arrays(z: torch.Tensor) -> float:
        return meter.measure(Inventory((Weight("w", "linear", 0, 1, None, z),), lambda: 0))

    assert arrays(w) == 8
    for crossbar, levels in ((Crossbar(cut="arrays"), range(9)), (Crossbar(per_block=True), range(0, 129, 32))):
        for level in levels:
            z = crossbar.project(w, level)
            assert arrays(z) == meter.cost(site, crossbar.packing((128, 512), level))
    assert arrays(Crossbar(per_block=True).project(w, 32)) == 2  # a quarter of each band's inputs, moved together


@pytest.mark.parametrize("crossbar", [Crossbar(16, 32), Crossbar(16, 32, cut="rows"), Crossbar(8, 8, cut="arrays")])
def test_the_file_takes_what_is_told(crossbar: Crossbar) -> None:
    w = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    for sparsity in (0.5, 0.8, 0.9):
        level = crossbar.parse_level({"sparsity": sparsity}, (64, 128))
        promise, found = crossbar.packing((64, 128), level), measure(crossbar.project(w, level).numpy())
        assert promise.estimate == pytest.approx(found.nbytes, rel=0.1)
        assert found.nbytes <= promise.max_nbytes


def test_a_cut_that_moves_no_array_is_survived() -> None:
    c = Crossbar(2, 2, cut="arrays")
    rows, cols = list(range(4)), list(range(5))
    assert c.after_cut((4, 5), [2, 3], cols, 5) == (c, 3)
    assert c.after_cut((4, 5), rows, [0, 1, 4], 4) == (c, 4)
    assert c.after_cut((4, 5), [1, 2, 3], cols, 5) is None


def test_options() -> None:
    assert build_constraint({"name": "crossbar", "cut": "rows", "per_block": True}) == Crossbar(
        cut="rows", per_block=True
    )
    for wrong in ({"cut": "cells"}, {"rows": 0}, {"cut": "arrays", "per_block": True}):
        with pytest.raises(UsageError, match="crossbar"):
            build_constraint({"name": "crossbar", **wrong})
