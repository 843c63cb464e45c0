"""A trained binary layer: hard gates, and a slope of the step that narrows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.solvers._masks import Masked, Masks, levelled, sharpness


@dataclass(frozen=True)
class Pbt(Masked):
    """Gates 1[m > threshold], one per row where rows go as a whole, else one per weight; trained with the weights.

    Backward the step is 1/2 (1 + tanh(s (m - threshold))), whose slope 1/2 s (1 - tanh^2) lets gates far from the
    threshold rest; s grows geometrically, so that fewer and fewer still move. Gates sit behind a norm: of a channel the
    gains of its norm and bias count too, for those of a convolution in front of a norm cancel. The multiplier of the
    budget is its threshold. The papers' abstracts give the idea; the formulas are our reading of it.

    Args:
        rate: how far m, a logarithm, goes in the whole approach at a gain of its root mean square and slope 1.
        sharpness: s at the end; 1 at the start.
        every, ramp, settle: as of `scl`.
    Reference: filter pruning by a trained binary (collaborative) layer with an asymptotic gradient, PBT.
    """

    sharpness: float = 10.0
    pooled: ClassVar[bool] = True
    reference: ClassVar[str] = "PBT: filter pruning by a binary layer with an asymptotic gradient (our reading)"

    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """m += rate / steps * gain * slope."""
        s = sharpness(state, self.sharpness, self.settle)
        speed = self.rate / state.problem.total_steps
        beyond = state.beyond()
        for k, g in levelled(state.by_row(gains, state.beside())).items():
            slope = 0.5 * s * (1.0 - (s * beyond[k]).tanh().square())
            state.learned[k] = state.learned[k] + speed * g * slope
