"""w^2 * the diagonal of the Fisher information, example by example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.saliencies._stats import statistic


@dataclass(frozen=True)
class Fisher(Saliency):
    """Score |w| sqrt(F_ii), h = F_ii = the mean over examples of g_n^2, g_n the gradient of one example's loss.

    Measured before the first step. With batches of B `squared_v` has F/B + (1 - 1/B) g^2 in expectation, g the gradient
    of the whole data: the same order where the net has converged, Taylor's where it has not.

    Reference: Theis et al. 2018, arXiv:1801.05787.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"fisher"})
    reference: ClassVar[str] = "Theis et al. 2018, arXiv:1801.05787"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """F_ii in float64."""
        fisher = statistic("fisher", "fisher", weight, stats)
        return None if fisher is None else fisher.clamp(min=0.0)
