"""Inputs: whole input channels of a layer go, or of all layers that read the same channels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch

from secateur.constraints._groups import Lines, OnKernels, Shape, banded
from secateur.types import Level, Packing, Site


@dataclass(frozen=True)
class Inputs(OnKernels):
    """{Z : at most k nonzero input channels}; the level is k.

    On coupled channels a row of the matrix holds one channel as all its readers see it: without readers `graph` removes
    it physically, with the filters that made it. On a plain weight, and beside sets that read columns, a channel is
    its columns at all taps, and the engine leaves out inputs that nothing reads; in a grouped convolution each group
    has inputs of its own.

    Attributes:
        coupled: rows are the channels; set from the site that the set acts on.

    Reference: Zhang et al., StructADMM, arXiv:1807.11091, sec. 3 (channel-wise).
    """

    coupled: bool = field(default=False, kw_only=True)
    view: ClassVar[str] = "readers"
    unit: ClassVar[str] = "column"
    level_keys: ClassVar[tuple[str, ...]] = ("inputs", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Zhang et al., StructADMM, arXiv:1807.11091, sec. 3"

    def on(self, site: Site) -> Self:
        return replace(super().on(site), coupled=site.op == "channels")

    def packing(self, shape: Shape, level: Level) -> Packing:
        """The kept channels whole, and which they are."""
        return replace(super().packing(shape, level), pattern="any" if level is None else "channels")

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        assert level is None or isinstance(level, int)
        return level * self.taps / shape[1] if unit == "row" and self.groups == 1 and level is not None else 1.0

    @property
    def trials(self) -> tuple[Shape, ...]:
        return ((5, 2), (6, 2)) if self.coupled else ((2 * self.groups, 5 * self.taps), (self.groups, 6 * self.taps))

    def _bands(self, shape: Shape) -> Lines:
        if self.coupled:
            return torch.arange(shape[0]), torch.zeros(shape[1], dtype=torch.int64)
        rows = banded(shape[0], self.groups, max(shape[0] // self.groups, 1))
        return rows, torch.arange(shape[1]) % max(shape[1] // self.taps, 1)

    def _file_sides(self, shape: Shape) -> Shape | None:
        return (1, shape[1]) if self.coupled else (max(shape[0] // self.groups, 1), self.taps)
