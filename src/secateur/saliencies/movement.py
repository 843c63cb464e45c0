"""-sum of w g: a weight that training moves away from zero stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from secateur.contracts import Saliency
from secateur.saliencies._stats import TINY, statistic


@dataclass(frozen=True)
class Movement(Saliency):
    """Score S = -sum over steps of w g, as softplus(S / s) s with s the root mean square of the parameter's S.

    First-order: it asks where the weight goes, not how large it is or what its removal would cost now. The field ranks
    by S itself, which may be negative; softplus keeps that order and is S where S is large, so that scores of units
    add up. Before the first step S comes from a calibration and says little: for solvers that prune on the way.

    Reference: Sanh et al., NeurIPS 2020, arXiv:2005.07683.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"movement"})
    reference: ClassVar[str] = "Sanh et al., NeurIPS 2020, arXiv:2005.07683"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """(softplus(S / s) s)^2 / w^2 in float64; None (all ones) before the first step of a loop of one's own."""
        s = statistic("movement", "movement", weight, stats)
        if s is None:
            return None
        scale = s.square().mean().sqrt().clamp(min=TINY**0.25)
        score = softplus(s / scale) * scale
        return score.square() / weight.detach().double().square().clamp(min=TINY)
