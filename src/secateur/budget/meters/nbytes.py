"""Bytes of the written file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.types import Packing, Site


@dataclass(frozen=True)
class NBytes(Meter):
    """Expected bytes of a site's tensor in the `.sct` file: `Packing.estimate`, never above the dense coding.

    The estimate prices positions (log2 C(n, nnz)) as well as values; `formats.measure` gives the exact size later.
    """

    unit: ClassVar[str] = "bytes"

    def cost(self, site: Site, packing: Packing) -> float:
        """min(estimate, 4 n + 2): a format falls back to the dense layout where that is smaller."""
        return min(packing.estimate, 4.0 * packing.n + 2.0)

    def fixed(self, **facts: Any) -> float:
        """`graph_nbytes` (header, graph) + 4 bytes for each of `n_unconstrained` values."""
        return float(facts.get("graph_nbytes", 0)) + 4.0 * float(facts.get("n_unconstrained", 0))
