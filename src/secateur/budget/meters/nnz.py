"""Nonzero weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.contracts import Meter
from secateur.types import Packing, Site


@dataclass(frozen=True)
class NNZ(Meter):
    """Kept weights of the constrained sites (values only: no positions, no biases)."""

    unit: ClassVar[str] = "weights"

    def cost(self, site: Site, packing: Packing) -> float:
        return float(packing.nnz)

    def fixed(self, **facts: Any) -> float:
        """`n_unconstrained`, when the caller counts them too."""
        return float(facts.get("n_unconstrained", 0))
