"""Random: the control that every saliency must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.contracts import Saliency
from secateur.errors import UsageError
from secateur.saliencies._stats import TINY


@dataclass(frozen=True)
class Random(Saliency):
    """Score uniform in (0, 1], whatever the weight: h = r / w^2, so that h w^2 = r.

    Reference: Frankle & Carbin, ICLR 2019, arXiv:1803.03635 (random pruning as control).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"generator"})
    reference: ClassVar[str] = "Frankle & Carbin, ICLR 2019, arXiv:1803.03635"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """r / w^2 in float64; r comes from `stats["generator"]` (a CPU torch.Generator)."""
        generator = stats.get("generator")
        if generator is None:
            raise UsageError("saliency random needs the statistic 'generator' (a torch.Generator)")
        r = 1.0 - torch.rand(weight.shape, generator=generator, dtype=torch.float64)
        return r.to(weight.device) / weight.detach().double().square().clamp(min=TINY)
