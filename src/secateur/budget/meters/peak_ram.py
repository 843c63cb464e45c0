"""Bytes of memory that one run takes in the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.limits import nbytes
from secateur.types import Inventory, Packing, Site

_KIND = "peak_ram"


@dataclass(frozen=True)
class PeakRAM(Meter):
    """The engine's memory plan for one example: the arena of the activations, and the packed weights.

    The same for the same file, kernel level and version. A site's packed weight at a density is in the table of
    `docs/design/latency.md`; the arena is read off the plan of the file that would be written.
    """

    unit: ClassVar[str] = "bytes of memory"
    margin: ClassVar[float] = 0.01
    on_machine: ClassVar[bool] = True
    by_place: ClassVar[bool] = True

    def cost(self, site: Site, packing: Packing) -> float:
        price = site.prices.get(_KIND)
        return 0.0 if price is None else price(packing)

    def measure(self, net: Inventory) -> float:
        """Of a part of a net the table's packed weights; of a written file its plan; 0 without either."""
        if _KIND in net.table:
            return net.table[_KIND]()
        return 0.0 if net.onnx is None else float(self.reading(net)["value"])

    def reading(self, net: Inventory) -> dict[str, Any]:
        if net.onnx is None or _KIND in net.table:
            return {"value": self.measure(net)}
        from secateur.engine.session import InferenceSession
        from secateur.native import _native

        memory = InferenceSession(net.onnx(), threads=1, tune="off").memory()
        return {"value": sum(memory.values()), "runs": 1, "cpu": _native.cpu_name()}

    def parse(self, given: Any) -> float:
        """As bytes of a file are written: `64KB`, `64KiB`, a number."""
        return nbytes(given)

    def write(self, value: float) -> str:
        return f"{super().write(value)}B"
