"""Multiply-adds per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.types import Packing, Site


@dataclass(frozen=True)
class MACs(Meter):
    """Multiply-adds that touch a kept weight: nnz * output positions, one multiply-add = one.

    Biases and norms cost nothing: they are additions, or folded into the layer before.
    """

    unit: ClassVar[str] = "multiply-adds"

    def cost(self, site: Site, packing: Packing) -> float:
        return 0.0 if site.op in ("bias", "norm") else float(packing.nnz) * site.positions

    def fixed(self, **facts: Any) -> float:
        """`macs_unconstrained`: multiply-adds of the layers that no term covers."""
        return float(facts.get("macs_unconstrained", 0))
