"""Turbo-VBI: a hierarchical prior whose nonzeros stand together; messages on the weight matrix say which they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._posterior import Posterior
from secateur.solvers._regrow import period
from secateur.terms import views
from secateur.terms.feasible import Importance
from secateur.types import Level, Solution, Stage, Weights

_SHAPE = 1.5  # of q(rho | s): the prior's Gamma shape 1, and 1/2 for one real weight
_RISEN = 0.5  # share of the steps before the support is chosen, after which the KL counts in full
_ROUNDS, _CLOSE = 50, 1e-3  # of messages: at most so many, and the change of log odds that ends them
_EDGE = 1e-3  # densities are kept so far from 0 and 1


@dataclass(frozen=True)
class TurboVBI(Solver):
    """s -> rho -> w: a support with Markov chains along rows and columns, precisions, weights; inferred by turns.

    p(w | rho) = N(0, 1/rho); rho ~ Gamma(1, 1) where s = 1 and Gamma(1, off) where s = 0; s stands on the grid of each
    weight's matrix (outputs x the rest), one is nonzero with the density that the budget leaves, and two neighbours
    correlate by `coupling`. Weights train on a draw of q(w) = N(mean, sigma^2) and on kl KL(q | N(0, 1/E rho)); every
    `every` steps messages go over the grid and give q(s), so that what lies alone is pulled to zero and what lies in a
    cluster is left. At `settle` the support is chosen, by the projection whose importance is q(s = 1): it spends the
    budget on the part of the squared weights that is meant. Then training goes on inside it. The answer is the means.

    Given q(w), q(rho, s) is exact and needs no rounds between its halves: its log odds are the messages' plus a Bayes
    factor in closed form. Independent q(rho) q(s), as in the paper, have two fixed points where the mean is 0 and stay
    at the one where they began. On a grid messages have loops and are damped; without evidence they leave the density
    as it is. The net shows one draw of weights a step, not one an example (local reparametrisation). Weights are
    counted in the root mean square of a parameter at the start. Biases and norms are points.

    Args:
        kl: weight of the KL beside the mean loss; rises evenly in the first half of the way to `settle`. Bayes' rule
            says 1 over the number of training examples, and that is too much for few: digits (1200), 4 % of the weights
            left, 8 epochs: 83.8, 96.3, 95.0 and 8.9 % accuracy with 1e-5, 3e-5, 1e-4 and 1e-3; one-shot 94.3.
        coupling: correlation of two neighbours, p(1 | 1) - p(1 | 0), below 1; 0: every weight for itself. The public
            demonstration has 0.2.
        off: Gamma rate where s = 0, about the variance of weights that are off.
        sigma, rate: as of `ssvi`.
        every: steps between two rounds of messages; None: 100, and fewer where that would be less than ten rounds.
        settle: share of the steps after which the support is chosen.
    Reference: Xia, Tsang & Lau, Structured Bayesian compression based on the Turbo-VBI approach, IEEE TSP 71, 2023,
        arXiv:2302.10483.
    """

    kl: float = 3e-5
    coupling: float = 0.2
    off: float = 0.01
    sigma: float = 0.01
    rate: float = 0.01
    every: int | None = None
    settle: float = 0.5
    reference: ClassVar[str] = "Xia, Tsang & Lau, Turbo-VBI, IEEE TSP 2023, arXiv:2302.10483"

    def __post_init__(self) -> None:
        counted = self.every is None or self.every >= 1
        if self.kl < 0 or not 0 <= self.coupling < 1 or not 0 < self.off < 1 or not counted:
            raise UsageError(
                f"solver turbo_vbi: kl={self.kl}, coupling={self.coupling}, off={self.off}, every={self.every}; "
                "kl >= 0, 0 <= coupling < 1, 0 < off < 1 and every >= 1 needed"
            )
        if self.sigma <= 0 or self.rate < 0 or not 0 < self.settle <= 1:
            raise UsageError(
                f"solver turbo_vbi: sigma={self.sigma}, rate={self.rate}, settle={self.settle}; sigma > 0, rate >= 0 "
                "and 0 < settle <= 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """Sets that are no choice of weights."""
        if term.constraint.before(Stage.SUPPORT, None) is None:
            return None
        return f"turbo_vbi infers which weights are zero, and {term.constraint.name} gives a weight another form"

    def init(self, problem: Problem) -> _State:
        """Nothing is pruned; what is believed of the weights as they are."""
        state = _State(problem)
        state.begin(dict.fromkeys(m.param for t in problem.terms for m in t.site.members), self.sigma)
        state.believe(self.coupling, self.off)
        return state

    def before_step(self, state: _State) -> None:
        """The widths' step, and the KL's slope for the means; of plain descent none that would overshoot zero."""
        p = state.problem
        kl = self.kl * min((state.n + 1) / max(_RISEN * self.settle * p.total_steps, 1.0), 1.0)
        precision = {k: tau / state.scale[k] ** 2 for k, tau in state.precision(self.off).items()}
        if not p.adaptive and (step := kl * p.learning_rate()) > 0:
            precision = {k: tau.clamp(max=1.0 / step) for k, tau in precision.items()}
        state.descend(precision, kl, self.rate)

    def step(self, state: _State) -> _State:
        """The means follow; messages, or the support, when it is time; the next draw."""
        state.advance()
        state.follow()
        end = max(round(self.settle * state.problem.total_steps), 1)
        if state.n == end:
            state.choose()
        elif state.n < end and state.n % period(self.every, end) == 0:
            state.believe(self.coupling, self.off)
        state.draw()
        return state

    def finish(self, state: _State) -> Solution:
        """The means; a run that was too short for its support chooses it now."""
        if state.frozen is None:
            state.choose()
        state.show(state.mean)
        return state.solution()


@dataclass
class _State(Posterior):
    """With what is believed: q(s = 1) of each weight that has a mean; empty before the first messages."""

    belief: dict[str, Tensor] = field(default_factory=dict)

    def second(self, name: str) -> Tensor:
        """E w^2, in units of `scale`."""
        return (self.mean[name].square() + self.sigma(name).square()) / self.scale[name] ** 2

    def believe(self, coupling: float, off: float) -> None:
        """Messages over every matrix; the density is that of today's projection at the final levels."""
        near = self.project(1.0, self.means())[1]
        for k, w in self.mean.items():
            density = int(near.get(k, w).count_nonzero()) / max(w.numel(), 1)
            grid = bayes_factor(self.second(k), off).reshape(len(w) if w.dim() > 1 else 1, -1)
            self.belief[k] = beliefs(grid, density, coupling).view_as(w)

    def precision(self, off: float) -> dict[str, Tensor]:
        """E rho, in units of 1 / `scale`^2."""
        out = {}
        for k, on in self.belief.items():
            half = self.second(k) / 2
            out[k] = _SHAPE * (on / (1.0 + half) + (1.0 - on) / (off + half))
        return out

    def choose(self) -> None:
        """Land on the sets; what stays is on, what goes is zero."""
        self.land(1.0, self.means())
        live = self.live
        self.mean = {k: live[k].clone() for k in self.mean}
        self.belief = {k: torch.ones_like(w) for k, w in self.mean.items()}

    def project(
        self, tightness: float, weights: Weights | None = None, importance: Importance | None = None
    ) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """As `State.project`, with q(s = 1) beside the saliency."""
        h: dict[str, Tensor | None] = dict(self.problem.importance() if importance is None else importance)
        for t in self.problem.terms if self.belief else ():
            on, known = views.matrix(t.site, t.constraint.view, self.belief).double(), h.get(t.site.name)
            h[t.site.name] = on if known is None else on * known
        return super().project(tightness, weights, h)


def bayes_factor(second: Tensor, off: float) -> Tensor:
    """log p(w | s = 1) - log p(w | s = 0), elementwise: what the weights say of s, rho integrated out.

    With m = E w^2 it is the logarithm of the ratio of integrals of Gamma(rho; 1, b) rho^(1/2) exp(-rho m / 2), which
    are proportional to b (b + m/2)^(-3/2), with b = 1 and b = `off`. Rises from log(off) / 2 at 0 to -log(off).

    Args:
        second: E w^2, in units in which weights that are on are about 1.
    """
    half = second / 2
    return _SHAPE * ((off + half).log() - (1.0 + half).log()) - math.log(off)


def beliefs(evidence: Tensor, density: float, coupling: float) -> Tensor:
    """q(s = 1) on a grid by sum-product messages; exact on a single row or column, damped on a grid, which has loops.

    The prior has the density of a one everywhere, and of two neighbours p(s, t) / p(s) p(t) for a factor, where p(s, t)
    are the pairs of a chain at rest: without evidence all messages are zero.

    Args:
        evidence: log odds of a one at each place, float [rows, cols].
        density: share of ones.
        coupling: correlation of neighbours, 0 <= coupling < 1.
    """
    density = min(max(density, _EDGE), 1.0 - _EDGE)
    odds = density / (1.0 - density)
    ones, zeros, mixed = evidence.new_tensor([1.0 + coupling / odds, 1.0 + coupling * odds, 1.0 - coupling]).log()
    own = evidence + math.log(odds)
    says = own.new_zeros(4, *own.shape)  # to each place, from its left, right, upper and lower neighbour
    for _ in range(_ROUNDS if coupling else 0):
        told = own + says.sum(0) - says[[1, 0, 3, 2]]  # the sender's odds, without what the receiver said to it
        told = torch.logaddexp(told + ones, mixed) - torch.logaddexp(told + mixed, zeros)
        moved = [told[i].roll(way, axis) for i, (way, axis) in enumerate(((1, 1), (-1, 1), (1, 0), (-1, 0)))]
        # Nobody stands beyond an edge.
        moved[0][:, 0], moved[1][:, -1], moved[2][0], moved[3][-1] = 0.0, 0.0, 0.0, 0.0
        change = (torch.stack(moved) - says) / 2
        says = says + change
        if float(change.abs().max()) < _CLOSE / 2:
            break
    return (own + says.sum(0)).sigmoid()
