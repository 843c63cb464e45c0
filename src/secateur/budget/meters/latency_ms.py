"""Milliseconds of one run in the engine, on one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.limits import quantity, quoted
from secateur.types import Inventory, Packing, Site

_KIND = "latency_ms"
_UNITS = {"": 1.0, "MS": 1.0, "US": 1e-3, "S": 1e3}


@dataclass(frozen=True)
class LatencyMS(Meter):
    """Time of one example through the whole net: the median of 300 runs and more of the written file.

    Before that it is predicted by a table of the machine's kernels (`docs/design/latency.md`): a site costs what its
    layer takes there at that pattern, density and width of values; sites without rows cost nothing that levels change.
    """

    unit: ClassVar[str] = "milliseconds"
    margin: ClassVar[float] = 0.03
    on_machine: ClassVar[bool] = True
    step: ClassVar[float] = 0.0001

    def cost(self, site: Site, packing: Packing) -> float:
        price = site.prices.get(_KIND)
        return 0.0 if price is None else price(packing)

    def measure(self, net: Inventory) -> float:
        return float(self.reading(net)["value"])

    def reading(self, net: Inventory) -> dict[str, Any]:
        """The table's answer where there is one; else the time of the written file; 0 without a file.

        Returns:
            `value`, and of what was timed `margin` (half the spread of the turns' medians, ms), `runs` and `cpu`.
        """
        if _KIND in net.table:
            return {"value": net.table[_KIND]()}
        if net.onnx is None:
            return {"value": 0.0}
        from secateur.engine.clock import timed
        from secateur.engine.session import InferenceSession
        from secateur.native import _native

        found = timed(InferenceSession(net.onnx(), threads=1, tune="off"))
        facts = {"margin": round(1e-3 * found.margin_us, 6), "runs": found.runs, "cpu": _native.cpu_name()}
        return {"value": round(1e-3 * found.us, 6), **facts}

    def parse(self, given: Any) -> float:
        """`0.4`, `0.4ms`, `400us` -> 0.4."""
        number, unit = quantity(given)
        if unit.upper() not in _UNITS:
            raise ValueError(f"{quoted(given)}; milliseconds are needed, as 0.4, 0.4ms or 400us")
        return number * _UNITS[unit.upper()]

    def write(self, value: float) -> str:
        return f"{super().write(value)}ms"

    def least(self, value: float) -> str:
        return f"the fastest network that these constraints give takes about {value:.12g} milliseconds"
