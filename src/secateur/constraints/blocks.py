"""Blocks: R outputs x C inputs at one place of the kernel go or stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, Tail
from secateur.errors import UsageError
from secateur.types import RAW_ALL, Bands, Level, Packing, Site, log2_choose

_FILE_SIDE = 64  # of a block, in the layout `blocks`
_FILE_HEADER = 64  # bits of that layout beside the positions, about (sides, order, number of blocks)


@dataclass(frozen=True)
class Blocks(Constraint):
    """{Z : at most k nonzero blocks of rows x cols}; the level is k, with `per_row` the k of every row of blocks.

    A block holds `rows` outputs and `cols` inputs at one tap of the kernel (linear layers have one tap) and never
    crosses a tap or a group of a grouped convolution. What is left over at the edges are smaller blocks of their own,
    which count with their true size: a level keeps the k best blocks, and a given `sparsity` or `nnz` means the most
    blocks of which no choice holds more weights than that.

    Attributes:
        rows, cols: outputs and inputs of a block. Kernels of the engine look for 2, 4, 8 or 16 outputs x 1 input.
        per_row: k blocks in every row of blocks (balanced work) instead of k in the matrix.
        permute: reorder coupled channels before the approach, so that whole blocks hold more; nothing of it is left at
            run time (`run/permute.py`).
        taps, groups: of the layer; set from the site that the set acts on.

    Reference: Ma et al., BLK-REW, arXiv:2001.08357 (blocks); Niu et al., ASPLOS 2020, arXiv:2001.00138 (kernels).
    """

    rows: int = 4
    cols: int = 1
    per_row: bool = False
    permute: bool = False
    taps: int = 1
    groups: int = 1
    view: ClassVar[str] = "o_khkw_c"
    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("sparsity", "density", "nnz")
    reference: ClassVar[str] = "Ma et al., BLK-REW, arXiv:2001.08357; Niu et al., ASPLOS 2020, arXiv:2001.00138"

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "taps", "groups"):
            if getattr(self, name) < 1:
                raise UsageError(f"blocks: {name} is {getattr(self, name)}; 1 or more is needed")

    def on(self, site: Site) -> Blocks:
        """With the kernel and the groups of the layer."""
        rows = len(site.rows)
        kernel = site.shape[2:] if site.op in ("conv", "conv_transpose") and rows == 1 else ()
        return replace(self, taps=int(np.prod(kernel, dtype=int)), groups=site.groups if kernel else 1)

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        n_rows, n_cols = self._grid(shape)
        return range((n_cols if self.per_row else n_rows * n_cols) + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("blocks", given, self.level_keys)
        kept = lv.count("blocks", key, value, shape[0] * shape[1])
        return int(np.searchsorted(self._most(shape), kept, side="right")) - 1

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the k blocks with the largest sum of h w^2 whole, zero the others.

        Nearest Z in sum h (w - z)^2. Exact: blocks do not overlap and count one each, whatever their size.

        Args:
            weight: float [rows, cols], columns (tap, input); not changed.
            level: k, 0..blocks (of a row of blocks, with `per_row`); None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal sums: the block with the lower row, then column stays.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        lv.checked("blocks", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("blocks", weight.shape, level, self.levels(_shape(weight)))
        assert isinstance(level, int)
        return lv.without(weight, ~self._kept(self._sums(lv.gains(weight, importance)), level, weight))

    def select(self, gain: Tensor, level: Level) -> Tensor:
        assert isinstance(level, int)
        won = gain.clamp(min=0.0)
        return self._kept(self._sums(won), level, gain) & (won > 0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        there = self._sums((weight != 0).double()) > 0
        return int(there.sum(dim=1).max() if self.per_row else there.sum()) <= level  # type: ignore[operator]

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The nonzero blocks stay, whole; their values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        return self._spread(self._sums((weight != 0).double()) > 0, weight)

    def bands(self, shape: tuple[int, int]) -> Bands | None:
        return Bands(*self._bands(shape), self.per_row) if self.permute else None

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Where whole blocks go, or what goes leaves the blocks behind it where they were (the end of an edge)."""
        row, col = (band.numpy() for band in self._bands(shape))
        n_in = shape[1] // self.taps
        left = [c for c in kept_cols if c < n_in]
        if [c + t * n_in for t in range(self.taps) for c in left] != list(kept_cols):
            return None
        length = max(shape[0] // self.groups, 1)
        each = [n for g in range(self.groups) if (n := sum(1 for r in kept_rows if r // length == g))]
        if len({*each}) > 1:
            return None
        after = replace(self, groups=max(len(each), 1))
        smaller = (len(kept_rows), len(kept_cols))
        for kept, band, axis in ((list(kept_rows), row, 0), (list(kept_cols), col, 1)):
            new = after._bands(smaller)[axis].numpy() if all(smaller) else band[kept]
            pairs = set(zip(band[kept].tolist(), new.tolist(), strict=True))
            if len({a for a, _ in pairs}) < len(pairs) or len({b for _, b in pairs}) < len(pairs):
                return None
        menu = after.levels(smaller) if all(smaller) else range(1)
        return after, lv.at_most(level, len(menu) - 1)

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """The kept blocks whole, the largest ones where they differ, and which they are.

        The packed file's blocks are cut without regard to taps and groups: where an edge is left over at each of these,
        or a side is longer than a file's (64), positions are those of single weights.
        """
        n = shape[0] * shape[1]
        assert level is None or isinstance(level, int)
        if level is None:
            return Packing(n, n)
        nnz, (n_rows, n_cols) = int(self._most(shape)[level]), self._grid(shape)
        pattern = f"{self.rows}x{self.cols}" if self.rows * self.cols > 1 else "any"
        plain = (self.groups == 1 or shape[0] // self.groups % self.rows == 0) and (
            self.taps == 1 or shape[1] // self.taps % self.cols == 0
        )
        if not plain or max(self.rows, self.cols) > _FILE_SIDE or self.rows * self.cols == 1:
            return Packing(n, nnz, pattern=pattern)
        kept = level * n_rows if self.per_row else level
        where = log2_choose(n_rows * n_cols, kept) + _FILE_HEADER
        # Values large and small, as where all are kept; the best single weights take fewer bits.
        return Packing(n, nnz, structure_bits=where, expected_bits=RAW_ALL, pattern=pattern)

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Sums of the smallest blocks: one sort for all levels."""
        lv.checked("blocks", weight, importance)
        sums = self._sums(lv.gains(weight, importance))
        if not self.per_row:
            return Tail(sums.flatten().cpu().numpy())
        ranked = sums.sort(dim=1).values.sum(dim=0).cpu().numpy()
        dropped = np.concatenate([[0.0], np.cumsum(ranked)])

        def curve(level: Level) -> float:
            assert level is None or isinstance(level, int)
            return 0.0 if level is None else float(dropped[len(ranked) - level])

        return curve

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        """Five blocks and more, with edges left over in rows, in columns and in both where that fits a tiny matrix."""
        r, c, g, t = self.rows, self.cols, self.groups, self.taps
        return (2 * r * g, 3 * c * t), ((r + 1) * g, (2 * c + 1) * t), (g * (r - r // 2), 5 * c * t)

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """blocks^(1-t) k^t, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(len(self.levels(shape)) - 1, level, tightness)

    def _grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows of blocks, and blocks in each."""
        n_out, n_in = shape[0] // self.groups, shape[1] // self.taps
        return self.groups * -(-n_out // self.rows), self.taps * -(-n_in // self.cols)

    def _bands(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The row of blocks of each row, and the column of blocks of each column."""
        return _band(shape[0], self.groups, self.rows), _band(shape[1], self.taps, self.cols)

    def _sums(self, matrix: Tensor) -> Tensor:
        """The sum over each block, [rows of blocks, blocks in each]."""
        row, col = (band.to(matrix.device) for band in self._bands(_shape(matrix)))
        n_rows, n_cols = self._grid(_shape(matrix))
        narrow = matrix.new_zeros(matrix.shape[0], n_cols).index_add_(1, col, matrix)
        return matrix.new_zeros(n_rows, n_cols).index_add_(0, row, narrow)

    def _kept(self, score: Tensor, level: int, like: Tensor) -> Tensor:
        """Bool mask of the weights of the best blocks."""
        if not self.per_row:
            return self._spread(lv.keep_largest(score.flatten(), level).view_as(score), like)
        order = score.sort(dim=1, descending=True, stable=True).indices
        kept = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order[:, :level], True)
        return self._spread(kept, like)

    def _spread(self, blocks: Tensor, like: Tensor) -> Tensor:
        row, col = (band.to(like.device) for band in self._bands(_shape(like)))
        return blocks[row][:, col]

    def _most(self, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The most weights that each level of the menu may keep."""
        return _most(self, shape)


@lru_cache(maxsize=4096)
def _most(blocks: Blocks, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    heights, widths = (np.bincount(band.numpy()) for band in blocks._bands(shape))
    if blocks.per_row:
        return np.concatenate([[0], np.cumsum(np.sort(widths)[::-1])]) * int(heights.sum())
    sizes = np.sort(np.outer(heights, widths).ravel())[::-1]
    return np.concatenate([[0], np.cumsum(sizes)])


def _band(n: int, parts: int, size: int) -> Tensor:
    """For each of `n` lines in `parts` equal parts, the number of its band of `size` within the parts."""
    line = torch.arange(n)
    length = max(n // parts, 1)
    return line // length * -(-length // size) + line % length // size


def _shape(matrix: Tensor) -> tuple[int, int]:
    return int(matrix.shape[0]), int(matrix.shape[1])
