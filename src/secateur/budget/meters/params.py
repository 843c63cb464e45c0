"""Parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Meter
from secateur.types import Inventory, Packing, Site


@dataclass(frozen=True)
class Params(Meter):
    """Values of all parameters as they are stored, zeros, biases and norms included.

    Only what is removed physically lowers it: channels do, zeros in place do not.
    """

    unit: ClassVar[str] = "parameters"
    lowered_by: ClassVar[str] = "channels"

    def cost(self, site: Site, packing: Packing) -> float:
        return float(packing.nnz if site.op == "channels" else packing.n)

    def measure(self, net: Inventory) -> float:
        return sum(w.value.numel() for w in net.weights)
