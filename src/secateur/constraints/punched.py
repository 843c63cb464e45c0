"""Punched: the same places of all kernels in a block of outputs x inputs go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import InBlocks, Lines, Shape, banded


@dataclass(frozen=True)
class Punched(InBlocks):
    """{Z : at most k nonzero places of blocks}; the level is k, with `per_block` the k of every block.

    A block holds the kernels between `rows` outputs and `cols` inputs, a place one tap of all of them. Blocks do not
    cross the groups of a convolution and are smaller where an edge is left over. A layer without a kernel has one place
    in each block. Over the whole layer (`per_block` off) these are the supports of `blocks` with the same sides.

    Attributes:
        rows, cols: outputs and inputs of a block.
        per_block: k places in each block (balanced work); off: k in the layer, wherever they are.

    Reference: Cai et al., YOLObile, AAAI 2021, arXiv:2009.05697 (block-punched); Ma et al., BLK-REW, arXiv:2001.08357.
    """

    rows: int = 8
    cols: int = 4
    level_keys: ClassVar[tuple[str, ...]] = ("places", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Cai et al., YOLObile, AAAI 2021, arXiv:2009.05697; Ma et al., BLK-REW, arXiv:2001.08357"

    @property
    def trials(self) -> tuple[Shape, ...]:
        r, c, g, t = self.rows, self.cols, self.groups, self.taps
        n = -(-5 // t)
        return (r * g, n * c * t), (r * g, (max(n, 2) * c - c // 2) * t), ((r + 1) * g, 3 * c * t)

    def _bands(self, shape: Shape) -> Lines:
        return banded(shape[0], self.groups, self.rows), banded(shape[1], self.taps, self.cols)

    def _pools(self, shape: Shape) -> Lines | None:
        if not self.per_block:
            return None
        n_in = max(shape[1] // self.taps, 1)
        return banded(shape[0], self.groups, self.rows), torch.arange(shape[1]) % n_in // self.cols

    def _file_sides(self, shape: Shape) -> Shape | None:
        return self._even(shape, self.rows, self.cols)

    def _pattern(self, shape: Shape) -> str:
        return f"{self.rows}x{self.cols}" if self.rows * self.cols > 1 else "any"
