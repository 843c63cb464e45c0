"""Multiply-adds per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Meter
from secateur.types import Inventory, Packing, Site


@dataclass(frozen=True)
class MACs(Meter):
    """Multiply-adds that touch a kept weight: nnz * output positions, one multiply-add = one.

    Biases and norms cost nothing: they are additions, or folded into the layer before.
    """

    unit: ClassVar[str] = "multiply-adds"
    lowered_by: ClassVar[str] = "channels"

    def cost(self, site: Site, packing: Packing) -> float:
        return 0.0 if site.op in ("bias", "norm") else float(packing.nnz) * site.positions

    def measure(self, net: Inventory) -> float:
        return sum(w.macs for w in net.weights)
