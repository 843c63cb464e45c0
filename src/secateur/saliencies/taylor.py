"""|w * g|: first-order Taylor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.saliencies._stats import statistic


@dataclass(frozen=True)
class Taylor(Saliency):
    """Score |w g|, h = g^2: the first-order change of the loss when w becomes 0.

    Reference: Molchanov et al., CVPR 2019, arXiv:1906.10771, eq. 8.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})
    reference: ClassVar[str] = "Molchanov et al., CVPR 2019, arXiv:1906.10771, eq. 8"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """g^2 in float64; None (all ones) while there is no gradient yet."""
        g = statistic("taylor", "gradient", weight, stats)
        return None if g is None else g.square()
