"""SSVI: a support of normal distributions; the least certain weights give way to those that the gradient asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem
from secateur.errors import UsageError
from secateur.solvers._posterior import Posterior
from secateur.solvers.rigl import RigL
from secateur.types import Solution

_RISEN = 0.5  # share of the steps after which the KL counts in full


@dataclass(frozen=True)
class SSVI(RigL):
    """RigL on a variational posterior: q(w) = N(mean, sigma^2) inside the support, 0 outside; the answer is the means.

    Minimises E_q[loss] + kl KL(q | N(0, prior^2)). Those give way whose |w| is least certain, E|w| / sd|w|; those come
    whose mean has the largest slope, with mean zero and the mean sigma of the parameter's others. E|w| / sd|w| rises
    with |mean| / sigma, so that of single weights these two choose alike; it is never below 1.32, and of units (blocks)
    the sum of its squares counts. As sigma goes to 0 this is RigL.

    The net shows one draw of weights a step, not one an example as in the paper (local reparametrisation). Widths step
    by their own normalised slope. Prior and widths are told in units of the root mean square of a parameter's weights
    at the start. What is not in a set of supports, and biases and norms, are points.

    Args:
        every, part, until, memory: as of `rigl`.
        kl: weight of the KL beside the mean loss, which it has from half of the steps on and towards which it rises
            evenly. Bayes' rule says 1 over the number of training examples; the paper takes a hundredth of that.
        prior: standard deviation of the prior.
        sigma: standard deviation at the start.
        rate: of a step of rho, sigma = softplus(rho); of small widths about the share that they change by in a step.
    Reference: Li et al., Training Bayesian neural networks with sparse subspace variational inference, ICLR 2024,
        arXiv:2402.11025.
    """

    kl: float = 1e-6
    prior: float = 1.0
    sigma: float = 0.01
    rate: float = 0.01
    reference: ClassVar[str] = "Li et al., SSVI, ICLR 2024, arXiv:2402.11025"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl < 0 or self.prior <= 0 or self.sigma <= 0 or self.rate < 0:
            raise UsageError(
                f"solver ssvi: kl={self.kl}, prior={self.prior}, sigma={self.sigma}, rate={self.rate}; kl and rate >= "
                "0, prior and sigma > 0 needed"
            )

    def init(self, problem: Problem) -> Posterior:
        """Inside the sets at once; the weights there are the means."""
        state = Posterior(problem)
        state.land(1.0)
        state.begin(state.held(), self.sigma)
        return state

    def before_step(self, state: Any) -> None:
        """As RigL; then the widths' own step, and the KL's slope for the means."""
        super().before_step(state)
        risen = min((state.n + 1) / (_RISEN * state.problem.total_steps), 1.0)
        state.descend({k: (self.prior * s) ** -2 for k, s in state.scale.items()}, self.kl * risen, self.rate)

    def step(self, state: Any) -> Posterior:
        """The means follow; exchange when it is time; the next draw."""
        state.advance()
        state.follow()
        part = self._part(state.problem, state.n)
        if part > 0 and state.gradients:
            before = state.held()
            certain = {k: certainty(w, state.sigma(k)) for k, w in state.mean.items()}
            state.swap(certain, part, {k: g.abs() for k, g in state.gradients.items()})
            _join(state, before)
        state.draw()
        return state  # type: ignore[no-any-return]

    def finish(self, state: Any) -> Solution:
        """The means: they are members already."""
        state.show(state.mean)
        return super().finish(state)


def certainty(mean: Tensor, sigma: Tensor) -> Tensor:
    """E|w| / sd|w| of w = N(mean, sigma^2), elementwise; sqrt(2 / (pi - 2)) = 1.3236 where the mean is 0.

    With r = |mean| / sigma, E|w| = sigma (r + d) where d = sqrt(2/pi) e^(-r^2/2) - r erfc(r / sqrt 2). The variance is
    written with d, for mean^2 + sigma^2 - (E|w|)^2 cancels where r is large.
    """
    r = mean.abs() / sigma
    tail: Tensor = torch.special.erfc(r / math.sqrt(2))
    d = math.sqrt(2 / math.pi) * (-r.square() / 2).exp() - r * tail
    return (r + d) / (1 - 2 * r * d - d.square()).sqrt()


def _join(state: Posterior, before: dict[str, Tensor]) -> None:
    """What came since begins at mean zero, as wide as the others are in the mean; means that went are forgotten."""
    for k, now in state.held().items():
        state.mean[k] = state.mean[k].masked_fill(~now, 0.0)
        came, old = now & ~before[k], now & before[k]
        if bool(came.any()) and bool(old.any()):
            wide = state.sigma(k)[old].mean().expm1().log()
            state.rho[k] = state.rho[k].where(~came, wide)
            state.power[k] = state.power[k].where(~came, state.power[k][old].mean())
