"""Sparse connectivity learning: a mask behind every weight, trained as if it were continuous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.solvers._masks import Masked, Masks, balanced


@dataclass(frozen=True)
class Scl(Masked):
    """W = W' * 1[m >= threshold]; the gradient passes the step function as if it were the identity: m += -g W'.

    The identity never vanishes, so that pruned connections go on learning and may return. Gains are balanced: those of
    one output are divided by their root mean square. The paper's cost of a connection, equal for all, moves every m
    alike and is the budget's threshold here, which rises with its tightness.

    Args:
        rate: how far m, a logarithm, goes in the whole approach where the gain stays at its root mean square.
        every: steps between two choices of the mask; None = 40, and fewer where a ramp would hold less than ten.
        ramp: share of the steps in which the tightness rises, by the cubic schedule.
        settle: share of the steps after which the mask is final.
    Reference: Tang et al., Automatic sparse connectivity learning for neural networks, arXiv:2201.05020.
    """

    reference: ClassVar[str] = "Tang et al., Automatic sparse connectivity learning, arXiv:2201.05020"

    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """m += rate / steps * balanced gain."""
        speed = self.rate / state.problem.total_steps
        state.learned = {k: state.learned[k] + speed * g for k, g in balanced(gains).items()}
