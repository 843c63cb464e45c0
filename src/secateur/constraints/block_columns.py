"""Block columns: inside a block of R outputs x C inputs whole columns go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import InBlocks, Lines, Shape, banded


@dataclass(frozen=True)
class BlockColumns(InBlocks):
    """{Z : at most k nonzero columns of blocks}; the level is k, with `per_block` the k of every block.

    The matrix is cut into blocks of `rows` outputs x `cols` inputs at one tap of the kernel; blocks cross neither taps
    nor the groups of a convolution, and are smaller where an edge is left over. A column of a block holds the weights
    of its outputs at one input. Blocks of 2, 4, 8 or 16 outputs have kernels in the engine.

    Attributes:
        rows, cols: of a block.
        per_block: k columns in each block (balanced work); off: k in the matrix, wherever they are.

    Reference: Ma et al., BLK-REW, arXiv:2001.08357, sec. 3; Li et al., EMNLP Findings 2020, arXiv:2009.08065.
    """

    rows: int = 8
    cols: int = 64
    level_keys: ClassVar[tuple[str, ...]] = ("columns", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Ma et al., BLK-REW, arXiv:2001.08357; Li et al., arXiv:2009.08065"

    @property
    def trials(self) -> tuple[Shape, ...]:
        r, g, t = self.rows, self.groups, self.taps
        return (r * g, 5 * t), ((r + 1) * g, 3 * t)

    def _bands(self, shape: Shape) -> Lines:
        return banded(shape[0], self.groups, self.rows), torch.arange(shape[1])

    def _file_sides(self, shape: Shape) -> Shape | None:
        return self._even(shape, self.rows, 1)

    def _pattern(self, shape: Shape) -> str:
        return f"{self.rows}x1"
