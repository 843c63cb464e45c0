"""Low rank: hand-checked numbers, the weighted optimum where it is known, and training that moves both factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from secateur.constraints._pieces import Free, Rank
from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Piece
from secateur.errors import ConstraintError, UsageError
from secateur.recipe import build_constraint
from secateur.testing.constraints import check_constraint
from secateur.types import Chain, Member, Packing, Same, Site


def eckart_young(constraint: Any, weight: Any, level: int, h: Any) -> float | None:
    """Sum of the smallest squared singular values; where importances differ there is no formula."""
    if not np.allclose(h, h.flat[0]):
        return None
    return float(h.flat[0] * (np.linalg.svd(weight, compute_uv=False)[level:] ** 2).sum())


LAWS = [(LowRank(), eckart_young), (LowRank(most=3), eckart_young)]
DIAGONAL = torch.diag(torch.tensor([1.0, 3.0, 2.0, 0.0], dtype=torch.float64))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alternating(w: Tensor, h: Tensor, rank: int, seed: int) -> float:
    """Weighted distance that alternating least squares reach from a random start: an oracle that knows no SVD."""
    left = normal(w.shape[0], rank, seed=seed)
    right = torch.zeros(rank, w.shape[1], dtype=w.dtype)

    def solved(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        root = g.sqrt()
        return torch.linalg.lstsq(a * root[:, None], (b * root)[:, None]).solution[:, 0]

    for _ in range(200):
        right = torch.stack([solved(left, w[:, j], h[:, j]) for j in range(w.shape[1])], 1)
        left = torch.stack([solved(right.T, w[i], h[i]) for i in range(w.shape[0])])
    return float((h * (w - left @ right).square()).sum())


def test_the_largest_singular_values_stay() -> None:
    near = LowRank().project(DIAGONAL, 1)
    torch.testing.assert_close(near, torch.diag(torch.tensor([0.0, 3.0, 0.0, 0.0], dtype=torch.float64)))
    curve = LowRank().distance(DIAGONAL)
    assert [curve(r) for r in (None, 1, 2, 3, 4)] == pytest.approx([0.0, 5.0, 1.0, 0.0, 0.0])
    assert LowRank().contains(DIAGONAL, 3)
    assert not LowRank().contains(DIAGONAL, 2)


@pytest.mark.parametrize("separable", [False, True])
def test_it_is_the_nearest_where_importances_are_a_product(separable: bool) -> None:
    w = normal(6, 9)
    h = torch.ones_like(w)
    if separable:
        h = torch.linspace(0.1, 4, 6, dtype=w.dtype)[:, None] * torch.linspace(3, 0.2, 9, dtype=w.dtype)
    reached = float((h * (w - LowRank().project(w, 2, h if separable else None)).square()).sum())
    best = min(alternating(w, h, 2, seed) for seed in range(4))
    assert reached == pytest.approx(best, rel=1e-6)


def test_levels_end_where_factors_no_longer_save() -> None:
    menu = LowRank().levels((300, 784))
    assert menu == range(1, 217)  # 216 * 1084 = 234,144 < 235,200 <= 217 * 1084
    assert list(LowRank().levels((1, 50))) == []
    assert LowRank().parse_level({"rank": 30}, (300, 784)) == 30
    assert LowRank().parse_level({"share": 0.25}, (300, 784)) == 54  # 54 * 1084 <= 58,800 < 55 * 1084
    assert LowRank().parse_level({"share": 1}, (300, 784)) == 216


def test_a_cut_may_leave_a_rank_that_saves_nothing() -> None:
    after = LowRank().after_cut((40, 40), range(30), range(30), 18)
    assert after == (LowRank(most=18), 18)
    assert LowRank(most=18).packing((30, 30), 18) == Packing(900, 900)
    assert LowRank().after_cut((40, 40), range(9), range(30), 18) == (LowRank(most=9), 9)
    assert LowRank().after_cut((40, 40), range(39), range(40), 18) == (LowRank(), 18)


@pytest.mark.parametrize(
    ("given", "shape", "said"),
    [
        ({"rank": 217}, (300, 784), "1..216 is possible"),
        ({"rank": 0}, (300, 784), "1..216"),
        ({"share": 0.001}, (10, 84), "less than rank 1, whose factors hold 0.1119"),
        ({"share": 1.5}, (300, 784), "a fraction"),
        ({"rank": 1}, (1, 50), "exclude it"),
        ({"sparsity": 0.9}, (300, 784), "rank, share"),
    ],
)
def test_a_level_that_cannot_be_had_is_refused_with_what_can(given: Any, shape: Any, said: str) -> None:
    with pytest.raises(ConstraintError, match=said):
        LowRank().parse_level(given, shape)


def test_two_factors_are_priced_and_made_or_the_matrix_where_it_is_shorter() -> None:
    assert LowRank().packing((6, 10), 2) == (Packing(12, 12), Packing(20, 20))
    assert LowRank().packing((4, 4), 2) == Packing(16, 16)
    z = LowRank().project(normal(6, 10).float(), 2)
    made = LowRank().realize(z, None)
    assert isinstance(made, Chain)
    assert [tuple(f.shape) for f in made.factors] == [(6, 2), (2, 10)]
    torch.testing.assert_close(made.factors[0] @ made.factors[1], z)
    assert isinstance(LowRank().realize(normal(6, 10), None), Same)
    zeros = LowRank().realize(torch.zeros(6, 10), None)
    assert isinstance(zeros, Chain)
    assert not any(bool(f.any()) for f in zeros.factors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_training_inside_the_piece_finds_another_row_and_column_space(dtype: torch.dtype) -> None:
    target = (normal(8, 2, seed=1) @ normal(2, 10, seed=2)).to(dtype)
    z = LowRank().project(normal(8, 10, seed=3).to(dtype), 2)
    piece = LowRank().freeze(z, 2)
    for _ in range(400):
        z = piece.project(z - 0.2 * (z - target))
        assert LowRank().contains(z, 2)
    torch.testing.assert_close(z, target, rtol=1e-4, atol=1e-4)


def test_rows_and_columns_of_zeros_stay() -> None:
    w = normal(6, 8)
    w[2], w[:, 5] = 0.0, 0.0
    z = LowRank().project(w, 2)
    moved = LowRank().freeze(z, 2).project(z + 0.1 * normal(6, 8, seed=1))
    for at in (z, moved):
        assert not bool(at[2].any())
        assert not bool(at[:, 5].any())


def test_a_step_taken_again_from_the_anchor_is_the_same_to_the_bit() -> None:
    z = LowRank().project(normal(6, 8).float(), 2)
    step = z + 0.1 * normal(6, 8, seed=1).float()
    assert torch.equal(LowRank().freeze(z, 2).project(step), LowRank().freeze(z.clone(), 2).project(step))


@pytest.mark.parametrize("parts", [["topk", "lowrank"], ["lowrank", "codebook"], ["lowrank", "lowrank"]])
def test_a_joint_set_with_it_is_refused_when_the_recipe_is_read(parts: list[str]) -> None:
    with pytest.raises(UsageError, match="lowrank stores other tensors"):
        build_constraint(parts)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (Site("e.weight", "embedding", (9, 4), (Member("e.weight"),)), "an embedding"),
        (Site("c.weight", "conv", (8, 2, 3, 3), (Member("c.weight"),), groups=4), "4 groups"),
    ],
)
def test_what_it_cannot_make_two_layers_of_is_said(site: Site, said: str) -> None:
    assert said in str(LowRank().unfit(site))
    assert LowRank().unfit(Site("c.weight", "conv", (8, 2, 3, 3), (Member("c.weight"),))) is None
    assert TopK().unfit(site) is None


# Deliberate faults that the conformance suite must notice ---------------------------------------------------------
class _Half(Rank):
    """One factor trains, the other is held."""

    linear = True

    def project(self, matrix: Tensor) -> Tensor:
        return self.member.clone() if torch.equal(matrix, self.member) else (matrix @ self.right) @ self.right.T


class _Oblique(Rank):
    """The row space of the start for ever: the step is not projected orthogonally."""

    def project(self, matrix: Tensor) -> Tensor:
        if torch.equal(matrix, self.member):
            return self.member.clone()
        left = torch.linalg.qr(matrix @ (self.right + 0.3 * self.right.roll(1, 0)))[0]
        return left @ (left.T @ matrix)


def _frozen(kind: type[Rank]) -> Any:
    def freeze(self: Constraint, weight: Tensor, level: Any) -> Piece:
        piece = LowRank.freeze(self, weight, level)  # type: ignore[arg-type]
        if isinstance(piece, Free):
            return piece
        assert isinstance(piece, Rank)
        right = torch.zeros(weight.shape[1], piece.right.shape[1], dtype=torch.float64)
        right[piece.cols] = piece.right
        return kind(piece.member, right.to(weight.dtype), piece.rows, piece.cols)

    return freeze


def _one_more(self: LowRank, weight: Tensor, level: Any, importance: Tensor | None = None) -> Tensor:
    z = LowRank.project(self, weight, level, importance)
    return z if level is None else LowRank.project(self, weight, min(level + 1, min(weight.shape)), importance)


def _ignores_scales(self: LowRank, weight: Tensor, level: Any, importance: Tensor | None = None) -> Tensor:
    z = LowRank.project(self, weight, level, importance)
    if level is None or importance is None or self.contains(weight, level):
        return z
    return LowRank.project(self, weight * importance, level).masked_fill(importance == 0, 0.0)


FAULTS: dict[str, tuple[str, Any, str]] = {
    "half of the weights train": ("freeze", _frozen(_Half), "piece|factor"),
    "oblique": ("freeze", _frozen(_Oblique), "tangent|orthogonally|factor"),
    "one rank more": ("project", _one_more, "no member"),
    "worse than without importance": ("project", _ignores_scales, "no member|without the importance"),
    "factors swapped": (
        "realize",
        lambda self, z, level: (
            Chain(LowRank.realize(self, z, level).factors[::-1])  # type: ignore[union-attr]
            if isinstance(LowRank.realize(self, z, level), Chain)
            else Same()
        ),
        "off the member",
    ),
    "stored as it is": ("realize", lambda self, z, level: Same(), "prices 2"),
    "priced as one": (
        "packing",
        lambda self, shape, level: Packing(shape[0] * shape[1], shape[0] * shape[1]),
        "prices 1",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_suite_notices_a_fault(name: str) -> None:
    method, fault, said = FAULTS[name]
    broken = type("LowRank", (LowRank,), {method: fault, "__module__": LowRank.__module__})()
    with pytest.raises(AssertionError, match=said):
        check_constraint(broken, oracle=eckart_young)
