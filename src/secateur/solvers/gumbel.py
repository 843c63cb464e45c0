"""Gates drawn anew at every step: weights near the threshold are tried with and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem
from secateur.errors import UsageError
from secateur.solvers._masks import Masked, Masks, levelled
from secateur.terms.feasible import Importance
from secateur.terms.frozen import Frozen
from secateur.types import Level, Weights

_TINY = 1e-12  # of a draw from [0, 1), whose logarithm is taken


@dataclass(frozen=True)
class Gumbel(Masked):
    """Gates a = sigmoid((m - threshold + g0 - g1) / tau), g0 and g1 Gumbel noise, in front of the weights.

    The gradient of m is exact, and every gate costs `cost`: m += gain * da/dm - cost * da/dm. What has learned less
    than -`margin` stays closed though the budget had room for it, so that the ratio is found and the budget
    bounds it. The mask that settles is decided without noise, on the same m that was trained.

    Args:
        rate: how far m, a logarithm, goes in the whole approach at a gain of its root mean square and slope 1.
        tau: temperature; towards 0 gates are drawn as 0 or 1.
        cost: price of a gate, in units of the gains' root mean square.
        margin: how far what was learned may fall below 0.
        every, ramp, settle: as of `scl`; masks are drawn as long as the tightness rises.
    Reference: Zhang et al., LP-3DGS, NeurIPS 2024, arXiv:2405.18784.
    """

    settle: float = 0.5
    tau: float = 0.5
    cost: float = 0.1
    margin: float = 1.0
    pooled: ClassVar[bool] = True
    reference: ClassVar[str] = "Zhang et al., LP-3DGS, NeurIPS 2024, arXiv:2405.18784"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau <= 0 or self.cost < 0 or self.margin <= 0:
            raise UsageError(
                f"solver gumbel: tau={self.tau}, cost={self.cost}, margin={self.margin}; tau > 0, cost >= 0 and "
                "margin > 0 needed"
            )

    def init(self, problem: Problem) -> Masks:
        """Nothing is pruned and nothing learned."""
        state = _Drawn(problem, pooled=self.pooled, margin=self.margin)
        state.begin()
        state.show(state.shown(self._gates(state)))
        return state

    def gates(self, state: Masks) -> dict[str, Tensor]:
        """The gates of this step: the draw hangs on the seed and the step alone."""
        g = torch.Generator().manual_seed(state.problem.seed + 1_000_003 * state.n)
        noise, beyond = dict[str, Tensor](), state.beyond()
        for k, m in beyond.items():
            u = torch.rand(m.shape, generator=g, dtype=torch.float64).clamp(_TINY, 1.0 - _TINY)
            noise[k] = (u.log() - (-u).log1p()).to(m)  # the difference of two Gumbel draws is logistic
        noise = state.by_row(noise, of=lambda rows: rows[:, :1])
        return {k: ((m + noise[k]) / self.tau).sigmoid() for k, m in beyond.items()}

    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """m += rate / steps * (gain - cost) * da/dm, which is a (1 - a) / tau."""
        speed = self.rate / state.problem.total_steps / self.tau
        for k, g in levelled(state.by_row(gains, state.beside())).items():
            state.learned[k] = state.learned[k] + speed * (g - self.cost) * gates[k] * (1.0 - gates[k])


@dataclass
class _Drawn(Masks):
    margin: float = 1.0

    def project(
        self, tightness: float, weights: Weights | None = None, importance: Importance | None = None
    ) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """The members without what is closed for good; a unit goes when all its weights are."""
        levels, near = super().project(tightness, weights, importance)
        closed = {k: d < -self.margin for k, d in self.learned.items()}
        left = Frozen(self.problem.terms, levels, {k: near[k].masked_fill(x, 0.0) for k, x in closed.items()})
        near = {k: z.clone() for k, z in near.items()}
        left.mask_(near)
        return levels, near
