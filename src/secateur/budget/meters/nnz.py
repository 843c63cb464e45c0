"""Nonzero weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Meter
from secateur.types import Inventory, Packing, Site


@dataclass(frozen=True)
class NNZ(Meter):
    """Weights that are not zero, in the whole net; no positions, no biases or norms."""

    unit: ClassVar[str] = "nonzeros"

    def cost(self, site: Site, packing: Packing) -> float:
        return 0.0 if site.op in ("bias", "norm") else float(packing.nnz)

    def measure(self, net: Inventory) -> float:
        return sum(w.nnz for w in net.weights if w.counted)

    def least(self, value: float) -> str:
        return f"the smallest network that these constraints give keeps {value:.12g} weights"
