"""Blocks: exact by energy, edges of their true size, taps and groups never crossed, cuts that move none."""

import numpy as np
import pytest
import torch

from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.errors import ConstraintError, UsageError
from secateur.formats import measure
from secateur.recipe import build_constraint
from secateur.terms import views
from secateur.testing import brute_force
from secateur.types import Member, Site


def number(n: int, size: int, parts: int) -> list[int]:
    """The band of each of n lines, counted one by one: a new one after `size` lines and at each part."""
    bands, band = [], -1
    for i in range(n):
        at = i % max(n // parts, 1)
        band += at % size == 0
        bands.append(band)
    return bands


def rule(constraint, masks, level):
    rows = number(masks.shape[1], constraint.rows, constraint.groups)
    cols = number(masks.shape[2], constraint.cols, constraint.taps)
    there = np.zeros((len(masks), rows[-1] + 1, cols[-1] + 1), bool)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            there[:, row, col] |= masks[:, i, j]
    return there.sum(axis=2).max(axis=1) <= level if constraint.per_row else there.sum(axis=(1, 2)) <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (
        Blocks(),
        Blocks(rows=2),
        Blocks(rows=1, cols=2),
        Blocks(rows=2, cols=2),
        Blocks(rows=1, cols=2, per_row=True),
        Blocks(rows=2, cols=1, per_row=True),
    )
]


def site(shape: tuple[int, ...], groups: int = 1) -> Site:
    return Site("w", "conv" if len(shape) > 2 else "linear", shape, (Member("w"),), groups=groups)


def test_the_block_with_the_largest_energy_stays_whole() -> None:
    w = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert Blocks(rows=2).project(w, 1).tolist() == [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # 9 against 2 and 8
    assert Blocks(rows=2).project(w, 1, torch.tensor([[1.0, 1, 2], [1, 1, 2]])).tolist() == [[0, 0, 2], [0, 0, 2]]
    free = Blocks(rows=2).freeze(Blocks(rows=2).project(w, 1), 1).project(torch.ones(2, 3))
    assert free.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]  # the zero in a kept block may move again


def test_blocks_of_one_weight_are_topk() -> None:
    w = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    one = Blocks(rows=1, cols=1)
    for k in (0, 3, 17, 35):
        assert torch.equal(one.project(w, k), TopK().project(w, k))
        assert one.packing((5, 7), k) == TopK().packing((5, 7), k)
    assert one.parse_level({"sparsity": 0.9}, (5, 7)) == TopK().parse_level({"sparsity": 0.9}, (5, 7))


def test_a_block_lies_at_one_tap_and_in_one_group() -> None:
    """Three inputs at 2 x 1 taps in blocks of two: 2 + 1 at each tap, none over two of them."""
    conv = Blocks(rows=1, cols=2).on(site((1, 3, 2, 1)))
    assert (conv.taps, conv.groups) == (2, 1)
    w = torch.tensor([[0.0, 0.0, 3.0, 3.0, 0.1, 0.0]])
    assert conv.project(w, 1).tolist() == [[0.0, 0.0, 0.0, pytest.approx(3.0), pytest.approx(0.1), 0.0]]
    assert len(conv.levels((1, 6))) == 5
    grouped = Blocks(rows=2).on(site((6, 1, 1, 1), groups=2))  # three outputs a group: 2 + 1, 2 + 1
    assert grouped.mask(torch.tensor([[0.0], [0], [1], [0], [0], [0]]), 1).flatten().tolist() == [0, 0, 1, 0, 0, 0]
    assert Blocks().on(site((8, 4))) == Blocks()


def test_what_is_asked_is_never_exceeded_at_ragged_edges() -> None:
    """Seven columns in blocks of four: 4 and 3. Half of 14 weights are one block of 4, whichever it is."""
    ragged = Blocks(rows=1, cols=4)
    assert [ragged.packing((2, 7), k).nnz for k in range(5)] == [0, 4, 8, 11, 14]
    asked = {0: 0, 3: 0, 4: 1, 7: 1, 8: 2, 10: 2, 11: 3, 13: 3, 14: 4}
    assert {n: ragged.parse_level({"nnz": n}, (2, 7)) for n in asked} == asked
    assert ragged.parse_level({"sparsity": 0.5}, (2, 7)) == 1
    balanced = Blocks(rows=1, cols=4, per_row=True)
    assert [balanced.packing((2, 7), k).nnz for k in range(3)] == [0, 8, 14]
    with pytest.raises(ConstraintError, match="sparsity, density, nnz"):
        ragged.parse_level({"blocks": 3}, (2, 7))


@pytest.mark.parametrize("shape", [(128, 256), (32, 32, 3, 3)])
@pytest.mark.parametrize("blocks", [Blocks(), Blocks(1, 4), Blocks(16, 1), Blocks(4, 4), Blocks(4, 1, per_row=True)])
def test_the_file_stores_blocks_at_the_price_that_is_told(shape: tuple[int, ...], blocks: Blocks) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    own = blocks.on(site(shape))
    matrix = views.matrix(site(shape), own.view, {"w": w})
    for sparsity in (0.5, 0.8, 0.95):
        level = own.parse_level({"sparsity": sparsity}, tuple(matrix.shape))
        promise = own.packing(tuple(matrix.shape), level)
        z = views.write(site(shape), own.view, {"w": w}, own.project(matrix, level))["w"]
        found = measure(z.numpy())
        assert found.layout == "blocks" or sparsity == 0.5
        assert promise.estimate == pytest.approx(found.nbytes, rel=0.05)
        assert found.nbytes <= promise.max_nbytes


def test_blocks_that_the_file_cuts_otherwise_are_priced_by_the_weight() -> None:
    """Five inputs at each of four taps in blocks of two; the file's blocks run on over the taps."""
    assert Blocks(1, 2, taps=4).packing((8, 20), 10).structure_bits is None
    assert Blocks(1, 2, taps=4).packing((8, 24), 10).structure_bits is not None
    assert Blocks(4, 1, groups=3).packing((18, 9), 10).structure_bits is None
    tall = Blocks(128, 1).packing((256, 9), 3)  # each is two of the file's, at most 64 high
    assert tall.structure_bits == Blocks(64, 1).packing((256, 9), 6).structure_bits


def test_a_cut_that_moves_no_block_is_survived() -> None:
    b = Blocks(rows=2, cols=2)
    everything = list(range(4)), list(range(5))
    assert b.after_cut((4, 5), [2, 3], everything[1], 5) == (b, 3)  # the first row of blocks
    assert b.after_cut((4, 5), everything[0], [0, 1, 4], 2) == (b, 2)
    assert b.after_cut((4, 5), [0, 1, 2], everything[1], 5) == (b, 5)  # the end of the last
    assert b.after_cut((4, 5), [1, 2, 3], everything[1], 5) is None  # those behind it would move
    assert b.after_cut((4, 5), everything[0], [1, 2, 3, 4], 5) is None
    taps = Blocks(rows=1, cols=2, taps=2)
    assert taps.after_cut((1, 8), [0], [2, 3, 6, 7], 3) == (taps, 2)
    assert taps.after_cut((1, 8), [0], [2, 3, 4, 5], 3) is None  # another input at each tap
    depthwise = Blocks(rows=4, groups=4, taps=9)
    assert depthwise.after_cut((4, 9), [0, 3], list(range(9)), 30) == (Blocks(rows=4, groups=2, taps=9), 18)


def test_options() -> None:
    assert build_constraint({"name": "blocks", "rows": 1, "cols": 4, "per_row": True}) == Blocks(1, 4, True)
    for wrong in ({"rows": 0}, {"cols": -1}):
        with pytest.raises(UsageError, match="1 or more"):
            build_constraint({"name": "blocks", **wrong})


@pytest.mark.parametrize("per_row", [False, True])
def test_blocks_are_told_as_bands(per_row: bool) -> None:
    own = Blocks(rows=2, per_row=per_row)
    bands = own.blocks((4, 3))
    assert bands.rows.tolist() == [0, 0, 1, 1]
    assert bands.cols.tolist() == [0, 1, 2]
    assert bands.each_row == per_row
    assert own.bands((4, 3)) is None
    assert TopK().blocks((4, 3)) is None
