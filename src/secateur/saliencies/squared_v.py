"""w^2 * v: the loss increase by the diagonal Fisher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.saliencies._stats import statistic


@dataclass(frozen=True)
class SquaredV(Saliency):
    """Score w^2 v (its order), h = v: the second-order loss increase with v in place of the diagonal Hessian.

    Reference: LeCun et al., NeurIPS 1989 (optimal brain damage), eq. 5, with the empirical Fisher.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"second_moment"})
    reference: ClassVar[str] = "LeCun et al., NeurIPS 1989, eq. 5"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """v in float64; None (all ones) while v is not known yet."""
        v = statistic("squared_v", "second_moment", weight, stats)
        return None if v is None else v.clamp(min=0.0)
