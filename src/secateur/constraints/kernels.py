"""Kernels: whole kernels go, the connections of one input channel to one output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.constraints._groups import Lines, OnKernels, Shape
from secateur.types import Level


@dataclass(frozen=True)
class Kernels(OnKernels):
    """{Z : at most k nonzero kernels}; the level is k, with `per_row` the k of every output.

    A kernel holds the taps between one input channel and one output (connectivity); of a linear layer it is one
    weight. The engine runs what is left weight by weight; that they come in kernels is stored only.

    Attributes:
        per_row: k kernels for every output (filter balance: equal work) instead of k in the layer.

    Reference: Ma et al., PCONV, AAAI 2020, arXiv:1909.05073; Niu et al., PatDNN, ASPLOS 2020, arXiv:2001.00138.
    """

    per_row: bool = False
    unit: ClassVar[str] = "kernel"
    level_keys: ClassVar[tuple[str, ...]] = ("kernels", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Niu et al., PatDNN, ASPLOS 2020, arXiv:2001.00138, sec. 4"

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        assert level is None or isinstance(level, int)
        return level * self.taps / shape[1] if unit == "row" and self.per_row and level is not None else 1.0

    @property
    def trials(self) -> tuple[Shape, ...]:
        return ((1, 5 * self.taps), (2, 3 * self.taps)) if self.taps > 1 else ((1, 8), (2, 5))

    def _bands(self, shape: Shape) -> Lines:
        return torch.arange(shape[0]), torch.arange(shape[1]) % max(shape[1] // self.taps, 1)

    def _pools(self, shape: Shape) -> Lines | None:
        return (torch.arange(shape[0]), torch.zeros(shape[1], dtype=torch.int64)) if self.per_row else None

    def _file_sides(self, shape: Shape) -> Shape | None:
        return 1, self.taps
