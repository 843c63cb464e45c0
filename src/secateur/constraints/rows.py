"""Rows: whole filters, neurons or coupled channels go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from secateur.constraints._groups import Grouped, Lines, Shape
from secateur.errors import UsageError
from secateur.types import Level, Packing, log2_choose


@dataclass(frozen=True)
class Rows(Grouped):
    """{Z : at most k nonzero rows}; the level is k, 0..rows.

    On a `channels` site a row holds one coupled channel of all its producers, and `graph` removes it physically;
    on a plain site a row is one output.

    Attributes:
        together: so many neighbouring rows go or stay as one, and k counts these runs. Where other sets lie in blocks
            over coupled channels, a run whose budget chooses k takes the length that they survive.

    Reference: Zhang et al., StructADMM, arXiv:1807.11091, sec. 3 (filter-wise).
    """

    together: int = 1
    view: ClassVar[str] = "channels"
    unit: ClassVar[str] = "row"
    level_keys: ClassVar[tuple[str, ...]] = ("rows", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Zhang et al., StructADMM, arXiv:1807.11091, sec. 3"

    def __post_init__(self) -> None:
        if self.together < 1:
            raise UsageError(f"rows: together is {self.together}; 1 or more rows are needed")

    def in_runs(self, n: int) -> Self:
        return replace(self, together=n) if self.together == 1 else self

    def packing(self, shape: Shape, level: Level) -> Packing:
        """The kept rows whole, and which they are."""
        rows, cols = shape
        if level is None:
            return Packing(rows * cols, rows * cols)
        assert isinstance(level, int)
        where = log2_choose(-(-rows // self.together), level)
        kept = min(level * self.together, rows)
        return Packing(rows * cols, kept * cols, structure_bits=where, pattern="channels")

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        assert level is None or isinstance(level, int)
        return min(level * self.together / shape[0], 1.0) if unit == "column" and level is not None else 1.0

    @property
    def trials(self) -> tuple[Shape, ...]:
        return ((5 * self.together, 2), (6 * self.together - 1, 2))

    def _bands(self, shape: Shape) -> Lines:
        return torch.arange(shape[0]) // self.together, torch.zeros(shape[1], dtype=torch.int64)
