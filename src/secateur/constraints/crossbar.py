"""Crossbar: columns, rows or the whole of blocks go that are as large as an array of memory cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import InBlocks, Lines, Shape, banded
from secateur.errors import UsageError

_CUTS = ("columns", "rows", "arrays")


@dataclass(frozen=True)
class Crossbar(InBlocks):
    """{Z : at most k nonzero columns, rows or whole arrays}; the level is k, with `per_block` the k of every array.

    The matrix (outputs) x (tap, input) is mapped to arrays of at most `rows` outputs x `cols` inputs, smaller at the
    edges; sums of arrays side by side are added. `cut: columns` drops inputs of single arrays, all outputs of a band at
    once, which closes word lines and lets what is left move together into fewer arrays; `rows` drops outputs of single
    arrays with their converters; `arrays` drops arrays whole. The budget `crossbars` counts arrays of 64 x 128. Every
    one of the three projections is exact. The engine runs `columns` and `arrays` in its block kernels; arrays are no
    part of it, so that their saving is counted and not measured.

    Attributes:
        rows, cols: outputs and inputs of an array.
        cut: what goes: `columns`, `rows` or `arrays`.

    Reference: Yuan et al., An ultra-efficient memristor-based DNN framework with structured weight pruning and
    quantization using ADMM, ISLPED 2019.
    """

    rows: int = 64
    cols: int = 128
    cut: str = "columns"
    level_keys: ClassVar[tuple[str, ...]] = ("units", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Yuan et al., An ultra-efficient memristor-based DNN framework, ISLPED 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cut not in _CUTS:
            raise UsageError(f"crossbar: cut is {self.cut!r}; one of {', '.join(_CUTS)} is needed")
        if self.per_block and self.cut == "arrays":
            raise UsageError("crossbar: an array is its own only unit; per_block needs cut: columns or rows")

    @property
    def trials(self) -> tuple[Shape, ...]:
        r, c, g = self.rows, self.cols, self.groups
        if self.cut == "columns":
            return (r * g, 5 * self.taps), ((r + 1) * g, 3 * self.taps)
        return (5 * g, c * self.taps) if self.cut == "rows" else (r * g, 5 * c * self.taps), (
            3 * r * g,
            2 * c * self.taps,
        )

    def _bands(self, shape: Shape) -> Lines:
        row, col = self._arrays(shape)
        if self.cut == "columns":
            return row, torch.arange(shape[1])
        return (torch.arange(shape[0]) if self.cut == "rows" else row), col

    def _pools(self, shape: Shape) -> Lines | None:
        return self._arrays(shape) if self.per_block else None

    def _arrays(self, shape: Shape) -> Lines:
        """The array of each row and of each column; they run on over taps, and not over the groups of a convolution."""
        return banded(shape[0], self.groups, self.rows), banded(shape[1], 1, self.cols)

    def _file_sides(self, shape: Shape) -> Shape | None:
        whole = self.groups == 1 or shape[0] // self.groups % self.rows == 0
        sides = {"columns": (self.rows, 1), "rows": (1, self.cols), "arrays": (self.rows, self.cols)}[self.cut]
        return sides if whole or self.cut == "rows" else None

    def _pattern(self, shape: Shape) -> str:
        rows, cols = min(self.rows, shape[0]), min(self.cols, shape[1])
        return {"columns": f"{rows}x1", "rows": f"1x{cols}", "arrays": f"{rows}x{cols}"}[self.cut]
