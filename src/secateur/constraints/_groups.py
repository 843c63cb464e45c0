"""Sets of supports whose units are groups: what lies in a band of rows and a band of columns goes or stays whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, Tail
from secateur.errors import UsageError
from secateur.types import RAW_ALL, Bands, Level, Packing, Site, log2_choose

_FILE_SIDES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)  # of a block that the layout `blocks` tries
_FILE_HEADER = 64  # bits of that layout beside the positions, about (sides, order, number of blocks)

Shape = tuple[int, int]
Lines = tuple[Tensor, Tensor]  # a number for each row and one for each column, int64


@dataclass(frozen=True)
class Grouped(Constraint):
    """{Z : at most k nonzero groups in every pool}; the level is k.

    A group is the places of one band of rows and one band of columns, a pool some of the groups; all of them unless
    `_pools` says otherwise. Groups count one each, whatever their size, so that the projection is exact: the k groups
    of a pool with the largest sum of h w^2 stay whole. A given `sparsity` or `nnz` is never exceeded: it means the
    most groups of which no choice holds more weights.
    """

    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("sparsity", "density", "nnz")  # any other key counts the groups

    @abstractmethod
    def _bands(self, shape: Shape) -> Lines:
        """The band of each row and of each column, counted from 0 without gaps in the order of the first lines."""

    def _pools(self, shape: Shape) -> Lines | None:
        """The pool of each row and of each column, alike within a band; None: one pool for all."""
        return None

    def _file_sides(self, shape: Shape) -> Shape | None:
        """Rows and columns of a group where they are neighbours in one of the file's two orders; else None."""
        return None

    def _pattern(self, shape: Shape) -> str:
        """Where zeros may lie, as `Packing.pattern` says it."""
        return "any"

    def _regrouped(self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int]) -> Self | None:
        """The set on what is left, where nothing but the bands decides whether it survives; None: it does not."""
        return self

    def levels(self, shape: Shape) -> Sequence[Level]:
        return range(len(_most(self, shape)))

    def parse_level(self, given: Mapping[str, Any], shape: Shape) -> Level:
        key, value = lv.only_key(self.name, given, self.level_keys)
        if key not in Grouped.level_keys:
            return lv.whole(self.name, key, value, 0, len(self.levels(shape)) - 1)
        kept = lv.count(self.name, key, value, shape[0] * shape[1])
        return int(np.searchsorted(_most(self, shape), kept, side="right")) - 1

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the k groups of every pool with the largest sum of h w^2 whole, zero the others.

        Nearest Z in sum h (w - z)^2. Exact: groups do not overlap and count one each.

        Args:
            weight: float [rows, cols]; not changed.
            level: k, 0..groups of the largest pool; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal sums: the group with the lower row, then column stays.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        lv.checked(self.name, weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu(self.name, weight.shape, level, self.levels(shape_of(weight)))
        return lv.without(
            weight, ~self._spread(self._kept(self._sums(lv.gains(weight, importance)), level, weight), weight)
        )

    def select(self, gain: Tensor, level: Level) -> Tensor:
        won = gain.clamp(min=0.0)
        return self._spread(self._kept(self._sums(won), level, gain), gain) & (won > 0)

    def units_of(self, shape: Shape) -> Tensor:
        """The groups, in flat order of bands."""
        row, col = self._bands(shape)
        return row[:, None] * _count(col) + col

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        assert isinstance(level, int)
        there = self._sums((weight != 0).double()) > 0
        pool = _pool_of_groups(self, shape_of(weight))
        counts = there.sum() if pool is None else torch.bincount(pool[there.flatten().cpu()], minlength=1).max()
        return int(counts) <= level

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The nonzero groups stay, whole; their values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        return self._spread(self._sums((weight != 0).double()) > 0, weight)

    def after_cut(
        self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Where whole groups go, or what goes leaves the groups behind it where they were (the end of an edge)."""
        after = self._regrouped(shape, kept_rows, kept_cols)
        smaller = (len(kept_rows), len(kept_cols))
        if after is None:
            return None
        if not all(smaller):
            return after, lv.at_most(level, 0)
        for now, then in ((after._bands(smaller), self._bands(shape)), (after._pools(smaller), self._pools(shape))):
            for at, line, kept in zip(now or (), then or (), (kept_rows, kept_cols), strict=False):
                pairs = set(zip(line[list(kept)].tolist(), at.tolist(), strict=True))
                if len({a for a, _ in pairs}) < len(pairs) or len({b for _, b in pairs}) < len(pairs):
                    return None
        return after, lv.at_most(level, len(after.levels(smaller)) - 1)

    def blocks(self, shape: Shape) -> Bands:
        row, col = self._bands(shape)
        pools = self._pools(shape)
        return Bands(row, col, pools is not None and torch.equal(pools[0], row) and not bool(pools[1].any()))

    def packing(self, shape: Shape, level: Level) -> Packing:
        """The kept groups whole, the largest ones where they differ, and which they are.

        Positions are those of the file's blocks where these can be cut alike, else those of single weights.
        """
        n = shape[0] * shape[1]
        if level is None:
            return Packing(n, n)
        assert isinstance(level, int)
        nnz, pattern, sides = int(_most(self, shape)[level]), self._pattern(shape), self._file_sides(shape)
        if sides is None:
            return Packing(n, nnz, pattern=pattern)
        height, down = _cut(sides[0], shape[0])
        width, across = _cut(sides[1], shape[1], getattr(self, "taps", 1))
        if height * width == 1:
            return Packing(n, nnz, pattern=pattern)
        blocks = -(-shape[0] // height) * -(-shape[1] // width)
        kept = min(_n_kept(self, shape, level) * down * across, blocks)
        # Values large and small, as where all are kept; the best single weights take fewer bits.
        where = log2_choose(blocks, kept) + _FILE_HEADER
        return Packing(n, nnz, structure_bits=where, expected_bits=RAW_ALL, pattern=pattern)

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Sums of the smallest groups: one sort for all levels."""
        lv.checked(self.name, weight, importance)
        sums = self._sums(lv.gains(weight, importance)).flatten().cpu()
        pool = _pool_of_groups(self, shape_of(weight))
        if pool is None:
            return Tail(sums.numpy())
        by_rank = torch.bincount(_ranks(sums, pool), weights=sums).numpy()
        dropped = np.concatenate([np.cumsum(by_rank[::-1])[::-1], [0.0]])

        def curve(level: Level) -> float:
            assert level is None or isinstance(level, int)
            return 0.0 if level is None else float(dropped[level])

        return curve

    def at_tightness(self, shape: Shape, level: Level, tightness: float) -> Level:
        """groups^(1-t) k^t, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(len(self.levels(shape)) - 1, level, tightness)

    def _sums(self, matrix: Tensor) -> Tensor:
        """The sum over each group, [bands of rows, bands of columns]."""
        row, col = (band.to(matrix.device) for band in self._bands(shape_of(matrix)))
        return _added(_added(matrix, col, 1), row, 0)

    def _kept(self, score: Tensor, level: Level, like: Tensor) -> Tensor:
        """Bool mask of the best groups."""
        assert isinstance(level, int)
        pool = _pool_of_groups(self, shape_of(like))
        if pool is None:
            return lv.keep_largest(score.flatten(), level).view_as(score)
        return (_ranks(score.flatten().cpu(), pool) < level).to(score.device).view_as(score)

    def _spread(self, kept: Tensor, like: Tensor) -> Tensor:
        row, col = (band.to(like.device) for band in self._bands(shape_of(like)))
        return kept[row][:, col]


@dataclass(frozen=True)
class OnKernels(Grouped):
    """Groups that mind the kernel and the groups of a convolution.

    The view is `o_khkw_c`: columns (tap, input). A linear layer has one tap.

    Attributes:
        taps, groups: of the layer; set from the site that the set acts on.
    """

    taps: int = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    view: ClassVar[str] = "o_khkw_c"
    sizes: ClassVar[tuple[str, ...]] = ()  # further options that must be 1 or more

    def __post_init__(self) -> None:
        for name in (*self.sizes, "taps", "groups"):
            if getattr(self, name) < 1:
                raise UsageError(f"{self.name}: {name} is {getattr(self, name)}; 1 or more is needed")

    def on(self, site: Site) -> Self:
        """With the kernel and the groups of the layer."""
        taps, groups = kernel_of(site)
        return replace(self, taps=taps, groups=groups)

    def _even(self, shape: Shape, rows: int, cols: int) -> Shape | None:
        """Rows x columns, at one tap, as the file's blocks: these are cut without regard to taps and groups."""
        whole = self.groups == 1 or shape[0] // self.groups % rows == 0
        return (rows, cols) if whole and (self.taps == 1 or shape[1] // self.taps % cols == 0) else None

    def _regrouped(self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int]) -> Self | None:
        n_in = shape[1] // self.taps
        left = [c for c in kept_cols if c < n_in]
        if [c + t * n_in for t in range(self.taps) for c in left] != list(kept_cols):
            return None  # other inputs at each tap
        groups = regrouped(self.groups, shape[0], kept_rows)
        return None if groups is None else replace(self, groups=groups)


@dataclass(frozen=True)
class InBlocks(OnKernels):
    """Groups inside blocks of the matrix, anywhere or the same number in every block.

    Attributes:
        rows, cols: outputs and inputs of a block, at one tap of the kernel.
        per_block: k groups in each block (balanced work); off: k in the matrix, wherever they are.
    """

    rows: int = 8
    cols: int = 8
    per_block: bool = False
    sizes: ClassVar[tuple[str, ...]] = ("rows", "cols")

    def _pools(self, shape: Shape) -> Lines | None:
        if not self.per_block:
            return None
        return banded(shape[0], self.groups, self.rows), banded(shape[1], self.taps, self.cols)

    def packing(self, shape: Shape, level: Level) -> Packing:
        return replace(super().packing(shape, level), even=self.per_block)


def regrouped(groups: int, n_rows: int, kept_rows: Sequence[int]) -> int | None:
    """The groups of a convolution of which some outputs stay; None: of each group that is left another number."""
    if len(kept_rows) == n_rows:
        return groups
    length = max(n_rows // groups, 1)
    each = [n for g in range(groups) if (n := sum(1 for r in kept_rows if r // length == g))]
    return max(len(each), 1) if len({*each}) <= 1 else None


def kernel_of(site: Site) -> Shape:
    """Taps and groups of a layer; one of each where it is no convolution."""
    kernel = site.shape[2:] if site.op in ("conv", "conv_transpose") and len(site.rows) == 1 else ()
    return int(np.prod(kernel, dtype=int)), site.groups if kernel else 1


def banded(n: int, parts: int, size: int) -> Tensor:
    """For each of `n` lines in `parts` equal parts, the number of its band of `size` within the parts."""
    line = torch.arange(n)
    length = max(n // parts, 1)
    return line // length * -(-length // size) + line % length // size


def shape_of(matrix: Tensor) -> Shape:
    """Rows and columns."""
    return int(matrix.shape[0]), int(matrix.shape[1])


def _added(matrix: Tensor, band: Tensor, dim: int) -> Tensor:
    """Sums over the bands along `dim`."""
    n = _count(band)
    if n == matrix.shape[dim]:
        return matrix
    if n == 1:
        return matrix.sum(dim=dim, keepdim=True)
    shape = list(matrix.shape)
    shape[dim] = n
    return matrix.new_zeros(shape).index_add_(dim, band, matrix)


def _count(band: Tensor) -> int:
    return int(band.max()) + 1 if band.numel() else 0


def _ranks(score: Tensor, pool: Tensor) -> Tensor:
    """The place of each group among those of its pool, the best one 0; equal scores: the lower index comes first."""
    order = score.sort(descending=True, stable=True).indices
    order = order[pool[order].sort(stable=True).indices]
    sizes = torch.bincount(pool)
    first = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order)) - first[pool[order]]
    return ranks


def _pool_of_groups(of: Grouped, shape: Shape) -> Tensor | None:
    """The pool of each group, in flat order; None: one for all."""
    pools = of._pools(shape)
    if pools is None:
        return None
    numbers = []
    for pool, band in zip(pools, of._bands(shape), strict=True):
        numbers.append(torch.zeros(_count(band), dtype=torch.int64).index_copy_(0, band, pool))
    down, across = numbers
    return (down[:, None] * (_count(pools[1])) + across).flatten()


def _n_kept(of: Grouped, shape: Shape, level: int) -> int:
    """The most groups that a level keeps in all pools."""
    pool = _pool_of_groups(of, shape)
    return level if pool is None else int(torch.bincount(pool).clamp(max=level).sum())


@lru_cache(maxsize=4096)
def _most(of: Grouped, shape: Shape) -> NDArray[np.int64]:
    """The most weights that each level of the menu may keep."""
    row, col = of._bands(shape)
    sizes = torch.outer(torch.bincount(row), torch.bincount(col)).flatten()
    pool = _pool_of_groups(of, shape)
    if pool is None:
        each = sizes.sort(descending=True).values.numpy()
    else:
        each = torch.bincount(_ranks(sizes, pool), weights=sizes.double()).long().numpy()
    found: NDArray[np.int64] = np.concatenate([[0], np.cumsum(each)])
    return found


def _cut(side: int, size: int, taps: int = 1) -> Shape:
    """The side of the file's blocks along an axis of `size` whose groups have `side`; how many of them a group is."""
    tried = [s for s in (*_FILE_SIDES, taps) if s <= min(size, _FILE_SIDES[-1])]
    if side >= size:
        return (best := max(tried)), -(-size // best)
    best = max(s for s in tried if side % s == 0)
    return best, side // best
