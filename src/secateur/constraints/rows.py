"""Rows: whole filters, neurons or coupled channels go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import Grouped, Lines, Shape
from secateur.types import Level, Packing, log2_choose


@dataclass(frozen=True)
class Rows(Grouped):
    """{Z : at most k nonzero rows}; the level is k, 0..rows.

    On a `channels` site a row holds one coupled channel of all its producers, and `graph` removes it physically;
    on a plain site a row is one output.

    Reference: Zhang et al., StructADMM, arXiv:1807.11091, sec. 3 (filter-wise).
    """

    view: ClassVar[str] = "channels"
    unit: ClassVar[str] = "row"
    level_keys: ClassVar[tuple[str, ...]] = ("rows", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Zhang et al., StructADMM, arXiv:1807.11091, sec. 3"

    def packing(self, shape: Shape, level: Level) -> Packing:
        """The kept rows whole, and which they are."""
        rows, cols = shape
        if level is None:
            return Packing(rows * cols, rows * cols)
        assert isinstance(level, int)
        return Packing(rows * cols, level * cols, structure_bits=log2_choose(rows, level), pattern="channels")

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        assert level is None or isinstance(level, int)
        return level / shape[0] if unit == "column" and level is not None else 1.0

    @property
    def trials(self) -> tuple[Shape, ...]:
        return ((5, 2), (6, 2))

    def _bands(self, shape: Shape) -> Lines:
        return torch.arange(shape[0]), torch.zeros(shape[1], dtype=torch.int64)
