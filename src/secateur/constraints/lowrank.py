"""Low rank: a weight matrix as the product of two thin ones, stored and run as two layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Rank
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, DistanceCurve, Joint, Memo
from secateur.errors import ConstraintError, UsageError
from secateur.types import Chain, Form, Level, Packing, Same, Site, Stage

_NOISE = 4.0  # roundings of the dtype, times the root of the shorter side: what a product of thin matrices is off by
_SPREAD = 1e-3  # of the mean: importances of whole rows or columns below that would make the scaled matrix singular


@dataclass(frozen=True)
class LowRank(Constraint):
    """{Z : rank Z <= r}; the level is r, from 1 to the last at which two factors hold fewer weights than the matrix.

    Acts on linear layers and on convolutions without groups. A member [rows, cols] is written as two layers of
    r * (rows + cols) weights: a convolution with the same kernel, stride and padding to r channels, then one of 1x1.

    The projection is exact (Eckart & Young, Psychometrika 1936) where all importances are equal, or the product of
    one number a row and one a column. No closed form is known for others; there it is never worse than the plain one.

    Args:
        most: the highest rank that is offered; None = the last that saves weights. Where two factors would hold no
            fewer weights than the matrix, it is stored as it is.

    Reference: Denton et al., NeurIPS 2014, arXiv:1404.0736, sec. 3; weighted: Hsu et al., FWSVD, ICLR 2022,
    arXiv:2207.00112; trained: Koch & Lubich, SIAM J. Matrix Anal. 29(2), 2007 (steps in the tangent space).
    """

    most: int | None = None
    level_keys: ClassVar[tuple[str, ...]] = ("rank", "share")
    exact: ClassVar[bool] = False
    stage: ClassVar[Stage] = Stage.FORM
    reference: ClassVar[str] = "Denton et al., NeurIPS 2014, arXiv:1404.0736; Hsu et al., ICLR 2022, arXiv:2207.00112"

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UsageError(f"lowrank: most={self.most}; a rank of at least 1 is needed")

    def unfit(self, site: Site) -> str | None:
        if site.op not in ("linear", "conv"):
            return f"lowrank makes two layers of one linear layer or convolution, and this is {_A[site.op]}"
        if site.groups > 1:
            return f"lowrank needs a convolution that reads all channels, and this one has {site.groups} groups"
        return None

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        rows, cols = shape
        last = (rows * cols - 1) // (rows + cols) if self.most is None else self.most
        return range(1, min(last, rows, cols) + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        """`rank`, or `share`: the part of the matrix's weights that the two factors may hold, 0 to 1."""
        key, value = lv.only_key("lowrank", given, self.level_keys)
        rows, cols = shape
        highest = len(self.levels(shape))
        if not highest:
            raise ConstraintError(
                f"lowrank [{rows}, {cols}]: two factors of any rank hold no fewer weights; exclude it"
            )
        if key == "rank":
            return lv.whole("lowrank", key, value, 1, highest)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise ConstraintError(
                f"lowrank: share is {value!r}; a fraction of the weights, above 0 and to 1, is needed"
            )
        rank = math.floor(value * rows * cols / (rows + cols) * (1 + 1e-12))
        if rank < 1:
            least = (rows + cols) / (rows * cols)
            raise ConstraintError(
                f"lowrank [{rows}, {cols}]: share {value:g} is less than rank 1, whose factors hold {least:.4f} of the "
                "weights; give a larger share or rank: 1, or exclude it"
            )
        return min(rank, highest)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """The r largest singular triples; with an importance also those of the matrix scaled by it, the nearer one.

        Members stay as they are, and so do rows and columns of zeros.

        Args:
            weight: float [rows, cols]; not changed. Computed in double.
            level: r >= 1; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device.
        Raises:
            ConstraintError: NaN or infinity, no such rank, an importance that does not fit.
        """
        lv.checked("lowrank", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("lowrank", weight.shape, level, range(1, weight.numel() + 1))
        assert isinstance(level, int)
        inner = _Inner.of(weight)
        own = _Spectrum(inner.matrix, weight.dtype)
        if own.rank <= level:
            return weight + 0.0
        near = inner.put(own.nearest(level), weight)
        if importance is None:
            return near
        rows, cols = _scales(inner.part(importance).double())
        scaled = _Spectrum(rows[:, None] * inner.matrix * cols, weight.dtype).nearest(level)
        other = inner.put(scaled / rows[:, None] / cols, weight)
        return other if _off(weight, other, importance) < _off(weight, near, importance) else near

    def contains(self, weight: Tensor, level: Level) -> bool:
        """Rank by singular values: what the rounding of a product to the dtype leaves beyond r is none."""
        if level is None:
            return True
        assert isinstance(level, int)
        inner = _Inner.of(weight).matrix
        return level >= min(inner.shape) or _Spectrum(inner, weight.dtype, values_only=True).rank <= level

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """All matrices of the member's own rank: rows and columns move, which is both factors."""
        if level is None:
            return Free()
        inner = _Inner.of(weight)
        own = _Spectrum(inner.matrix, weight.dtype)
        assert isinstance(level, int)
        return Rank(weight.clone(), own.right(min(own.rank, level)), inner.rows, inner.cols)

    def packing(self, shape: tuple[int, int], level: Level) -> Packing | tuple[Packing, ...]:
        """The two factors, each dense; the matrix itself where they would hold no fewer weights."""
        rows, cols = shape
        assert level is None or isinstance(level, int)
        if level is None or level * (rows + cols) >= rows * cols:
            return Packing(rows * cols, rows * cols)
        return Packing(rows * level, rows * level), Packing(level * cols, level * cols)

    def realize(self, matrix: Tensor, level: Level) -> Form:
        """Its singular vectors, each side times the root of the singular values, so that the factors are alike."""
        rows, cols = matrix.shape
        if isinstance(level, int) and level * (rows + cols) >= rows * cols:
            return Same()
        inner = _Inner.of(matrix)
        own = _Spectrum(inner.matrix, matrix.dtype)
        assert level is None or isinstance(level, int)
        rank = own.rank if level is None else min(own.rank, level)
        width = max(rank, 1)  # of a matrix of zeros one column and one row of zeros
        if width * (rows + cols) >= rows * cols:
            return Same()
        left, right = matrix.new_zeros(rows, width), matrix.new_zeros(width, cols)
        if rank:
            a, b = own.factors(rank)
            left[inner.rows], right[:, inner.cols] = a.to(matrix.dtype), b.to(matrix.dtype)
        return Chain((left + 0.0, right + 0.0))

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """What is left of a matrix has no higher rank, though two factors of that rank may save nothing there."""
        left = len(kept_rows), len(kept_cols)
        if level is None or level in self.levels(left):
            return self, level
        assert isinstance(level, int)
        rank = max(min(level, *left), 1)
        return LowRank(most=rank), rank

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Sums of the smallest squared singular values; with an importance those of the scaled matrix, an estimate."""
        lv.checked("lowrank", weight, importance)
        inner = _Inner.of(weight)
        own = _Spectrum(inner.matrix, weight.dtype, values_only=True).tail()
        if importance is None:
            return own
        rows, cols = _scales(inner.part(importance).double())
        scaled = _Spectrum(rows[:, None] * inner.matrix * cols, weight.dtype, values_only=True)
        return Joint(Memo(DistanceCurve(self.project, weight, importance)), scaled.tail())

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        return ((4, 5), (6, 3))

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """R^(1-t) r^t, rounded up, R the highest rank on the menu."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(max(len(self.levels(shape)), level), level, tightness)


_A = {
    "conv_transpose": "a transposed convolution",
    "matmul": "a parameter that the code multiplies itself",
    "recurrent": "the weight of a recurrent cell",
    "embedding": "an embedding",
    "bias": "a bias",
    "norm": "the scale of a norm",
    "channels": "a group of channels",
}


@dataclass(frozen=True, eq=False)
class _Inner:
    """What a matrix holds beside its rows and columns of zeros, in double, and where that sits.

    Singular vectors are zero there up to rounding only, and what is zero (a removed channel) must stay zero.
    """

    matrix: Tensor
    rows: Tensor
    cols: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> _Inner:
        full = weight != 0
        rows, cols = full.any(1).nonzero().flatten(), full.any(0).nonzero().flatten()
        return cls(weight[rows][:, cols].double(), rows, cols)

    def part(self, matrix: Tensor) -> Tensor:
        """The same places of another matrix."""
        return matrix[self.rows][:, self.cols]

    def put(self, inner: Tensor, like: Tensor) -> Tensor:
        """A matrix like `like` with `inner` in its places, zeros elsewhere."""
        out = torch.zeros_like(like)
        out[self.rows[:, None], self.cols] = inner.to(like.dtype)
        return out + 0.0


class _Spectrum:
    """Singular values `s`, falling, of a matrix that was rounded to `dtype`, and the vectors of its shorter side.

    Of float64 by SVD. Of narrower dtypes by the eigenvalues of the Gram matrix in double, several times faster for
    512 x 4608: what that squares away lies below 1e-8 of the largest one, far below the rounding of the matrix itself.
    """

    def __init__(self, matrix: Tensor, dtype: torch.dtype, values_only: bool = False) -> None:
        self._turned = matrix.shape[0] > matrix.shape[1]
        self._wide = m = matrix.T if self._turned else matrix
        self._u = m.new_zeros(0, 0)
        if dtype == torch.float64:
            if values_only:
                self.s = torch.linalg.svdvals(m)
            else:
                self._u, self.s, _ = torch.linalg.svd(m, full_matrices=False)
        else:
            gram = m @ m.T
            if values_only:
                squares = torch.linalg.eigvalsh(gram)
            else:
                squares, u = torch.linalg.eigh(gram)
                self._u = u.flip(1)
            self.s = squares.flip(0).clamp(min=0.0).sqrt()
        side = _NOISE * torch.finfo(dtype).eps * math.sqrt(max(m.shape[0], 1))
        self._beyond = torch.cat([self.s.square().flip(0).cumsum(0).flip(0), self.s.new_zeros(1)])
        self.rank = int((self._beyond > side**2 * float(m.square().sum())).sum())

    def nearest(self, rank: int) -> Tensor:
        """The nearest matrix of that rank."""
        u = self._u[:, :rank]
        near: Tensor = u @ (u.T @ self._wide)
        return near.T if self._turned else near

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """[rows, rank] and [rank, cols], whose product is `nearest`; equal norms."""
        u, roots = self._u[:, :rank], self.s[:rank].sqrt()
        a, b = u * roots, (u.T @ self._wide) / roots[:, None]
        return (b.T, a.T) if self._turned else (a, b)

    def right(self, rank: int) -> Tensor:
        """Orthonormal columns [cols, rank] that span the rows of `nearest`."""
        u = self._u[:, :rank]
        return u if self._turned else torch.linalg.qr(self._wide.T @ u)[0]

    def tail(self) -> Curve:
        """Level -> squared distance to the nearest matrix of that rank; what rounding leaves is none."""
        beyond, rank = self._beyond.tolist(), self.rank
        return lambda level: 0.0 if level is None or level >= rank else beyond[level]  # type: ignore[operator, index]


def _scales(h: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of one number a row and one a column, whose products come near the importances."""
    rows, cols = h.mean(1), h.mean(0)
    mean = float(h.mean()) if h.numel() else 0.0
    if mean == 0:
        return torch.ones_like(rows), torch.ones_like(cols)
    return (rows / mean).clamp(min=_SPREAD).sqrt(), cols.clamp(min=_SPREAD * mean).sqrt()


def _off(weight: Tensor, z: Tensor, h: Tensor) -> float:
    return float((h.double() * (weight.double() - z.double()).square()).sum())
