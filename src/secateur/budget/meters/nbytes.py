"""Bytes of the written file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.limits import quantity, quoted
from secateur.types import Inventory, Packing, Site

_UNITS = {"B": 1, "KB": 1000, "MB": 10**6, "GB": 10**9, "KIB": 1024, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class NBytes(Meter):
    """Bytes of the `.sct` file on disk, everything included.

    The estimate of a site's tensor, `Packing.estimate`, prices positions (log2 C(n, nnz)) as well as values. Training
    moves the entropy of the values by less than the margin.
    """

    unit: ClassVar[str] = "bytes"
    margin: ClassVar[float] = 0.01
    in_file: ClassVar[bool] = True
    lowered_by: ClassVar[str] = "values"

    def cost(self, site: Site, packing: Packing) -> float:
        """min(estimate, 4 n + 2): a format falls back to the dense layout where that is smaller."""
        return min(packing.estimate, 4.0 * packing.n + 2.0)

    def measure(self, net: Inventory) -> float:
        return net.nbytes

    def parse(self, given: Any) -> float:
        """`6KB` -> 6000, `6KiB` -> 6144; a plain number is bytes.

        A fraction of a byte is dropped, which changes nothing: sizes of files are whole.
        """
        number, unit = quantity(given)
        if unit.upper() not in _UNITS and isinstance(given, str):
            raise ValueError(
                f"{quoted(given)} needs a unit, one of B, KB, MB, GB (1000) or KiB, MiB, GiB (1024); "
                "a plain number is bytes"
            )
        number *= _UNITS.get(unit.upper(), 1)
        return float(math.floor(round(number, 6))) if math.isfinite(number) else number

    def write(self, value: float) -> str:
        return f"{super().write(value)}B"

    def least(self, value: float) -> str:
        return f"the smallest file that these constraints give is about {value:.12g} bytes"
