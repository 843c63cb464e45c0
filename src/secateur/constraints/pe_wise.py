"""PE-wise: tiles of outputs x inputs with their whole kernels, as a processing element takes them, go or stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import Lines, OnKernels, Shape, banded


@dataclass(frozen=True)
class PEWise(OnKernels):
    """{Z : at most k nonzero tiles}; the level is k.

    A tile holds the kernels between `rows` outputs and `cols` inputs, all that one call of a processing element takes.
    Tiles do not cross the groups of a convolution and are smaller where an edge is left over. Beside ternary values
    ({name: uniform, min_bits: 2, max_bits: 2} in one list) support and scale are chosen together: the scale is that of
    the kept tiles. Tiles of 2, 4, 8 or 16 outputs have kernels in the engine, one input and tap at a time.

    Attributes:
        rows, cols: outputs and inputs of a tile.

    Reference: Yang et al., AAAI 2020, "Harmonious coexistence of structured weight pruning and ternarization".
    """

    rows: int = 8
    cols: int = 4
    sizes: ClassVar[tuple[str, ...]] = ("rows", "cols")
    level_keys: ClassVar[tuple[str, ...]] = ("tiles", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Yang et al., Harmonious coexistence of structured pruning and ternarization, AAAI 2020"

    @property
    def trials(self) -> tuple[Shape, ...]:
        r, c, g, t = self.rows, self.cols, self.groups, self.taps
        return (r * g, 5 * c * t), ((r + 1) * g, 3 * c * t)

    def _bands(self, shape: Shape) -> Lines:
        n_in = max(shape[1] // self.taps, 1)
        return banded(shape[0], self.groups, self.rows), torch.arange(shape[1]) % n_in // self.cols

    def _file_sides(self, shape: Shape) -> Shape | None:
        even = self._even(shape, self.rows, self.cols)
        return (self.rows, self.cols * self.taps) if even else None

    def _pattern(self, shape: Shape) -> str:
        return f"{self.rows}x{self.cols}"
