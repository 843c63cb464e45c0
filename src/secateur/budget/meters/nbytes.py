"""Bytes of the written file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.limits import nbytes
from secateur.types import Inventory, Packing, Site


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
        return nbytes(given)

    def write(self, value: float) -> str:
        return f"{super().write(value)}B"

    def least(self, value: float) -> str:
        return f"the smallest file that these constraints give is about {value:.12g} bytes"
