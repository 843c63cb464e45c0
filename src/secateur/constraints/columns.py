"""Columns: the same (input, tap) position is zero in all filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch

from secateur.constraints._groups import Grouped, Lines, Shape, banded, kernel_of, regrouped
from secateur.types import Level, Site


@dataclass(frozen=True)
class Columns(Grouped):
    """{Z : at most k nonzero columns}; the level is k.

    A column of the matrix (outputs) x (inputs, taps) is one position of all filters: shape-wise sparsity. It is not
    removed, for the position may be read by others: the block kernels of the engine skip it. In a grouped convolution
    each group of filters has columns of its own.

    Attributes:
        groups: of the layer; set from the site that the set acts on.

    Reference: Zhang et al., StructADMM, arXiv:1807.11091, sec. 3 (shape-wise); Wen et al., NIPS 2016.
    """

    groups: int = field(default=1, kw_only=True)
    view: ClassVar[str] = "oc"
    unit: ClassVar[str] = "column"
    level_keys: ClassVar[tuple[str, ...]] = ("columns", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Zhang et al., StructADMM, arXiv:1807.11091, sec. 3"

    def on(self, site: Site) -> Self:
        """With the groups of the layer."""
        return replace(self, groups=kernel_of(site)[1])

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        assert level is None or isinstance(level, int)
        return level / shape[1] if unit == "row" and self.groups == 1 and level is not None else 1.0

    @property
    def trials(self) -> tuple[Shape, ...]:
        return ((2, 5), (1, 6)) if self.groups == 1 else ((self.groups, 5),)

    def _regrouped(self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int]) -> Self | None:
        groups = regrouped(self.groups, shape[0], kept_rows)
        return None if groups is None else replace(self, groups=groups)

    def _bands(self, shape: Shape) -> Lines:
        return banded(shape[0], self.groups, max(shape[0] // self.groups, 1)), torch.arange(shape[1])

    def _file_sides(self, shape: Shape) -> Shape | None:
        return max(shape[0] // self.groups, 1), 1

    def _pattern(self, shape: Shape) -> str:
        return f"{max(shape[0] // self.groups, 1)}x1"
