"""|w * g| before the first step: what the loss feels of the connection, once and for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.saliencies._stats import TINY, statistic


@dataclass(frozen=True)
class Snip(Saliency):
    """Score |w0 g0|, the slope of the loss in a factor in front of the weight, at the start: h = (w0 g0)^2 / w^2.

    The order is settled before any step, whatever becomes of the weights; `taylor` has the same score at the start and
    follows weights and gradients from there. Meant for nets that are not trained yet: at an optimum g0 is noise.

    Reference: Lee et al., ICLR 2019, arXiv:1810.02340.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"sensitivity"})
    reference: ClassVar[str] = "Lee et al., ICLR 2019, arXiv:1810.02340"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """(w0 g0)^2 / w^2 in float64."""
        score = statistic("snip", "sensitivity", weight, stats)
        return None if score is None else score.square() / weight.detach().double().square().clamp(min=TINY)
