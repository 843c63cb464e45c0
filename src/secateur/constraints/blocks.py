"""Blocks: R outputs x C inputs at one place of the kernel go or stay together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import Lines, OnKernels, Shape, banded
from secateur.types import Bands


@dataclass(frozen=True)
class Blocks(OnKernels):
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

    Reference: Ma et al., BLK-REW, arXiv:2001.08357 (blocks); Niu et al., ASPLOS 2020, arXiv:2001.00138 (kernels).
    """

    rows: int = 4
    cols: int = 1
    per_row: bool = False
    permute: bool = False
    sizes: ClassVar[tuple[str, ...]] = ("rows", "cols")
    reference: ClassVar[str] = "Ma et al., BLK-REW, arXiv:2001.08357; Niu et al., ASPLOS 2020, arXiv:2001.00138"

    def bands(self, shape: Shape) -> Bands | None:
        return self.blocks(shape) if self.permute else None

    @property
    def trials(self) -> tuple[Shape, ...]:
        """Five blocks and more, with edges left over in rows, in columns and in both where that fits a tiny matrix."""
        r, c, g, t = self.rows, self.cols, self.groups, self.taps
        return (2 * r * g, 3 * c * t), ((r + 1) * g, (2 * c + 1) * t), (g * (r - r // 2), 5 * c * t)

    def _bands(self, shape: Shape) -> Lines:
        return banded(shape[0], self.groups, self.rows), banded(shape[1], self.taps, self.cols)

    def _pools(self, shape: Shape) -> Lines | None:
        return (self._bands(shape)[0], torch.zeros(shape[1], dtype=torch.int64)) if self.per_row else None

    def _file_sides(self, shape: Shape) -> Shape | None:
        return self._even(shape, self.rows, self.cols)

    def _pattern(self, shape: Shape) -> str:
        return f"{self.rows}x{self.cols}" if self.rows * self.cols > 1 else "any"
