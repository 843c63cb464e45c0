"""Gather-scatter: groups of one weight a bank, in one row, in several; exact where rows are apart, else a bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from secateur.constraints.gather_scatter import GatherScatter
from secateur.constraints.topk import TopK
from secateur.errors import ConstraintError, UsageError
from secateur.formats import measure
from secateur.recipe import build_constraint
from secateur.report import words
from secateur.testing import brute_force
from secateur.types import Member, Site


def rule(constraint, masks, level):
    """Bundle by bundle, the fullest bank or the fullest row counts."""
    height = constraint.banks // constraint.per_row
    total = np.zeros(len(masks), int)
    for top in range(0, masks.shape[1], height):
        part = masks[:, top : top + height]
        rows = np.ceil(part.sum(axis=2) / constraint.per_row).max(axis=1)
        banks = [part[:, :, b :: constraint.banks].sum(axis=(1, 2)) for b in range(constraint.banks)]
        total += np.maximum(rows, np.max(banks, axis=0)).astype(int)
    return total <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (
        GatherScatter(2, 2),
        GatherScatter(2, 1),
        GatherScatter(3, 3),
        GatherScatter(4, 2),
        GatherScatter(2, 2, taps=2),
        GatherScatter(),
    )
]


def test_one_weight_a_bank_in_a_row() -> None:
    """Columns 0, 2, 4 are bank 0: of 9, 8, 7 there and 1, 2, 3 in bank 1 a group takes the largest of each."""
    w = torch.tensor([[9.0, 1.0, 8.0, 2.0, 7.0, 3.0], [1.0, 1.0, 6.0, 5.0, 1.0, 1.0]])
    gs = GatherScatter(2, 2)
    assert gs.project(w, 1).tolist() == [[9, 0, 0, 0, 0, 3], [0] * 6]  # 90 against 61
    assert gs.project(w, 2).tolist() == [[9, 0, 8, 2, 0, 3], [0] * 6]  # 68 against 61
    assert gs.project(w, 3).tolist() == [[9, 0, 8, 2, 0, 3], [0, 0, 6, 5, 0, 0]]
    assert gs.distance(w)(2) == pytest.approx(50 + 65)


def test_one_weight_a_row_and_a_bank() -> None:
    """Two rows, two banks: a group is a diagonal. 5 and 4 share a bank, so that 4 comes in the second group."""
    w = torch.tensor([[5.0, 1.0], [4.0, 3.0]])
    gs = GatherScatter(2, 1)
    assert gs.project(w, 1).tolist() == [[5, 0], [0, 3]]
    assert not gs.contains(torch.tensor([[5.0, 0], [4.0, 0]]), 1)
    assert gs.contains(torch.tensor([[5.0, 0], [4, 0]]), 2)
    assert not gs.exact
    assert not gs.nests
    assert GatherScatter(2, 2).exact


@pytest.mark.parametrize(("banks", "per_row"), [(4, 4), (4, 2), (4, 1), (8, 2)])
def test_members_split_into_groups_without_conflict(banks: int, per_row: int) -> None:
    """The definition itself: edge after edge of each bundle is taken out, a group at a time."""
    gs = GatherScatter(banks, per_row)
    g = torch.Generator().manual_seed(banks + per_row)
    w = torch.randn(2 * gs._height, 6 * banks, generator=g)
    for level in (1, 5, 11, len(gs.levels((w.shape[0], w.shape[1]))) - 1):
        z = gs.project(w, level)
        need = 0
        for part in z.reshape(2, gs._height, -1):
            rows, cols = part.nonzero(as_tuple=True)
            need += split(list(zip(rows.tolist(), (cols % banks).tolist(), strict=True)), per_row)
        assert need <= level
        assert int((z != 0).sum()) <= gs.packing((w.shape[0], w.shape[1]), level).nnz


def split(edges: list[tuple[int, int]], per_row: int) -> int:
    """Colours that a bundle's weights need: a row's are dealt over `per_row` copies, then Koenig's swaps."""
    seen: dict[int, int] = {}
    dealt = []
    for row, bank in edges:
        seen[row] = seen.get(row, -1) + 1
        dealt.append(((row, seen[row] % per_row), bank))
    most = max(
        max((sum(a == x for a, _ in dealt) for x, _ in dealt), default=0),
        max((sum(b == y for _, b in dealt) for _, y in dealt), default=0),
    )
    left: dict[tuple[object, int], object] = {}
    right: dict[tuple[int, int], object] = {}
    for a, b in dealt:
        i = next(c for c in range(most) if (a, c) not in left)
        j = next(c for c in range(most) if (b, c) not in right)
        if i != j:  # swap i and j along the path that starts at b
            path, node, colour, on_right = [], b, i, True
            while (node, colour) in (right if on_right else left):
                other = (right if on_right else left)[node, colour]
                path.append(((other, node) if on_right else (node, other), colour))
                node, colour, on_right = other, i + j - colour, not on_right
            for (x, y), c in path:
                del left[x, c], right[y, c]
            for (x, y), c in path:
                left[x, i + j - c], right[y, i + j - c] = y, x
        assert (a, i) not in left
        assert (b, i) not in right
        left[a, i], right[b, i] = b, a
    return most


@pytest.mark.parametrize(("banks", "per_row"), [(4, 2), (4, 1), (8, 4)])
def test_a_bundle_keeps_no_less_than_rows_and_banks_cut_alone(banks: int, per_row: int) -> None:
    gs = GatherScatter(banks, per_row)
    w = torch.randn(gs._height, 5 * banks, generator=torch.Generator().manual_seed(0))
    e, bank = w.square(), torch.arange(5 * banks) % banks
    for level in range(1, 5 * banks // per_row):
        plain = torch.zeros_like(w, dtype=torch.bool)
        for r, c in itertools.product(*map(range, w.shape)):
            ahead_r, ahead_b = int((e[r] > e[r, c]).sum()), int((e[:, bank == bank[c]] > e[r, c]).sum())
            plain[r, c] = ahead_r < per_row * level and ahead_b < level
        kept = gs.project(w, level) != 0
        assert bool(kept[plain].all())
        assert float(e[kept].sum()) <= float((TopK().project(w, banks * level) ** 2).sum()) + 1e-6


def test_a_cut_leaves_inputs_in_their_banks() -> None:
    gs = GatherScatter(2, 1)
    rows, cols = list(range(4)), list(range(6))
    assert gs.after_cut((4, 6), [2, 3], cols, 9) == (gs, 6)
    assert gs.after_cut((4, 6), rows, [0, 1, 4, 5], 3) == (gs, 3)
    assert gs.after_cut((4, 6), rows, [0, 3, 4, 5], 3) == (gs, 3)  # 3 stands where 1 stood, in the same bank
    assert gs.after_cut((4, 6), rows, [1, 2, 4, 5], 3) is None
    assert gs.after_cut((4, 6), [1, 2, 3], cols, 3) is None
    taps = GatherScatter(2, 2, taps=2)
    assert taps.after_cut((1, 8), [0], [2, 3, 6, 7], 3) == (taps, 2)
    assert taps.after_cut((1, 8), [0], [0, 1, 6, 7], 3) is None


def test_shapes_that_do_not_divide_name_the_nearest_choice() -> None:
    with pytest.raises(ConstraintError, match="12 inputs are no multiple of 8 banks; take banks: 6"):
        GatherScatter().levels((4, 12))
    with pytest.raises(ConstraintError, match=r"1 inputs .* take topk"):
        GatherScatter().levels((4, 1))
    with pytest.raises(ConstraintError, match="6 outputs are no multiple of a bundle of 4; take per_row: 4"):
        GatherScatter(8, 2).levels((6, 16))
    depthwise = Site("w", "conv", (8, 1, 3, 3), (Member("w"),), groups=8)
    with pytest.raises(ConstraintError, match="1 inputs"):
        GatherScatter().on(depthwise).levels((8, 9))
    for wrong in ({"banks": 1}, {"per_row": 3}):
        with pytest.raises(UsageError, match="gather_scatter"):
            build_constraint({"name": "gather_scatter", **wrong})


@pytest.mark.parametrize("per_row", [8, 2, 1])
def test_the_file_takes_what_is_told_and_the_shape_is_stored_only(per_row: int) -> None:
    w = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    gs = GatherScatter(8, per_row)
    for sparsity in (0.5, 0.8, 0.95):
        level = gs.parse_level({"sparsity": sparsity}, (64, 128))
        promise, found = gs.packing((64, 128), level), measure(gs.project(w, level).numpy())
        assert promise.estimate == pytest.approx(found.nbytes, rel=0.1)
        assert found.nbytes <= promise.max_nbytes
        assert words.runs([promise]) == "weight by weight (the shape is stored only)"
