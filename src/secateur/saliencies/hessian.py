"""w^2 * the diagonal of the Hessian: optimal brain damage with the curvature itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.saliencies._stats import statistic


@dataclass(frozen=True)
class Hessian(Saliency):
    """Score |w| sqrt(H_ii), h = max(H_ii, 0), by Hutchinson's estimate before the first step; half its square is the
    loss that the weight's removal costs, where the gradient is 0 and the others do not move.

    Where the curvature is negative the loss has no minimum to leave: h is 0, and the weight goes first.

    Reference: LeCun et al., NeurIPS 1989 (optimal brain damage), eq. 5; the estimate: Bekas et al., Applied Numerical
        Mathematics 57, 2007, and Yao et al., AdaHessian, AAAI 2021, arXiv:2006.00719.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"curvature"})
    reference: ClassVar[str] = "LeCun et al., NeurIPS 1989, eq. 5; Yao et al., AAAI 2021, arXiv:2006.00719"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """max(H_ii, 0) in float64."""
        curvature = statistic("hessian", "curvature", weight, stats)
        return None if curvature is None else curvature.clamp(min=0.0)
