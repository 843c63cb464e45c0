"""|w| * v^power: magnitude times a root of the mean squared gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency
from secateur.errors import UsageError
from secateur.saliencies._stats import statistic


@dataclass(frozen=True)
class AbsVPower(Saliency):
    """Score |w| * v^power, h = v^(2 power), v = running mean of squared gradients (Adam's second moment).

    power 0 is magnitude, 1/2 the diagonal Fisher form of optimal brain damage; 1/4 lies between.

    Reference: LeCun et al., NeurIPS 1989 (optimal brain damage); Kingma & Ba, arXiv:1412.6980 (v).
    """

    power: float = 0.25
    needs: ClassVar[frozenset[str]] = frozenset({"second_moment"})
    reference: ClassVar[str] = "LeCun et al., NeurIPS 1989; Kingma & Ba, arXiv:1412.6980"

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 4:
            raise UsageError(f"saliency abs_v_power: power is {self.power}; 0..4 is possible")

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """v^(2 power) in float64; None (all ones) while v is not known yet."""
        v = statistic("abs_v_power", "second_moment", weight, stats)
        return None if v is None else v.clamp(min=0.0) ** (2.0 * self.power)
