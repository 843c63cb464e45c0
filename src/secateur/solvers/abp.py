"""Attention that becomes binary: gates are shown soft, and harden while the net trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.solvers._masks import Masked, Masks, levelled, sharpness


@dataclass(frozen=True)
class Abp(Masked):
    """Gates a = 1/2 (1 + tanh(s (m - threshold))) in front of the weights, one per row where rows go as a whole.

    The net shows the attention itself, so that its gradient is exact, where `pbt` shows the step and passes a slope off
    as its own. s grows geometrically, the attention becomes the mask, and nothing jumps when that is settled. What is
    pruned fades instead of vanishing. The papers' abstracts give the idea; the formulas are our reading of it.

    Args:
        rate: how far m, a logarithm, goes in the whole approach at a gain of its root mean square and slope 1.
        sharpness: s at the end; 1 at the start.
        every, ramp, settle: as of `scl`.
    Reference: filter pruning by auxiliary attention with an asymptotic gradient, ABP.
    """

    sharpness: float = 10.0
    pooled: ClassVar[bool] = True
    reference: ClassVar[str] = "ABP: filter pruning by auxiliary attention that becomes binary (our reading)"

    def gates(self, state: Masks) -> dict[str, Tensor]:
        """The attention of every scored parameter."""
        s = sharpness(state, self.sharpness, self.settle)
        return {k: 0.5 + 0.5 * (s * m).tanh() for k, m in state.beyond().items()}

    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """m += rate / steps * gain * da/dm, which is 2 s a (1 - a)."""
        speed = self.rate / state.problem.total_steps * 2.0 * sharpness(state, self.sharpness, self.settle)
        for k, g in levelled(state.by_row(gains, state.beside())).items():
            state.learned[k] = state.learned[k] + speed * g * gates[k] * (1.0 - gates[k])
