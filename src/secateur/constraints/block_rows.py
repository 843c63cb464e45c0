"""Block rows: inside a block of R outputs x C inputs whole rows go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import InBlocks, Lines, Shape, banded


@dataclass(frozen=True)
class BlockRows(InBlocks):
    """{Z : at most k nonzero rows of blocks}; the level is k, with `per_block` the k of every block.

    The matrix is cut into blocks of `rows` outputs x `cols` inputs at one tap of the kernel; blocks cross neither taps
    nor the groups of a convolution, and are smaller where an edge is left over. A row of a block holds the weights of
    one output at its inputs.

    Attributes:
        rows, cols: of a block.
        per_block: k rows in each block (balanced work); off: k in the matrix, wherever they are.

    Reference: Ma et al., BLK-REW, arXiv:2001.08357, sec. 3; Li et al., EMNLP Findings 2020, arXiv:2009.08065.
    """

    rows: int = 64
    cols: int = 8
    level_keys: ClassVar[tuple[str, ...]] = ("rows", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Ma et al., BLK-REW, arXiv:2001.08357; Li et al., arXiv:2009.08065"

    @property
    def trials(self) -> tuple[Shape, ...]:
        c, g, t = self.cols, self.groups, self.taps
        return (5 * g, c * t), (3 * g, (c + 1) * t)

    def _bands(self, shape: Shape) -> Lines:
        return torch.arange(shape[0]), banded(shape[1], self.taps, self.cols)

    def _file_sides(self, shape: Shape) -> Shape | None:
        return self._even(shape, 1, self.cols)

    def _pattern(self, shape: Shape) -> str:
        return f"1x{self.cols}"
