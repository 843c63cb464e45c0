"""Weighted group sparse envelope: the proximal step of the convex hull of "at most k groups", at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._state import State, gaps
from secateur.solvers._units import Units, refusal, units
from secateur.types import Solution, Weights


@dataclass(frozen=True)
class Wgsef(Solver):
    """min f(W) + lambda S_k(W), S_k the convex envelope of 1/2 sum_g d_g |W_g|^2 where at most k groups are nonzero.

    The groups are the units of each set of supports; k is how many of them the projection under the budget holds, taken
    anew every `every` steps. The proximal step, exact, is W_g u_g / (u_g + lambda d_g): u_g in [0, 1] with the sum k,
    0 where |W_g| is small. Groups with u = 1 only decay, the smallest are zero and may come back. lambda rises from 0,
    after `start` of the steps, to `strength` for one such step: the penalty shrinks what stays too, which the masked
    retraining makes up for. The answer is the projection.

    Args:
        sizes: d is the number of weights of the group over the mean of all; else 1.
    Reference: Refael, Arbel & Huleihel 2022, arXiv:2212.12921 (the envelope); the proximal operator derived here.
    """

    strength: float = 0.1
    every: int = 10
    start: float = 0.15
    sizes: bool = False
    reference: ClassVar[str] = "Refael, Arbel & Huleihel 2022, arXiv:2212.12921"

    def __post_init__(self) -> None:
        if self.strength < 0 or self.every < 1 or not 0 <= self.start < 1:
            raise UsageError(
                f"solver wgsef: strength={self.strength}, every={self.every}, start={self.start}; strength >= 0, "
                "every >= 1 and 0 <= start < 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """Sets that are no supports."""
        return refusal(term, "wgsef counts")

    def init(self, problem: Problem) -> _State:
        """k from the projection of the dense weights."""
        return _State(problem).counted()

    def step(self, state: _State) -> _State:
        """The proximal step, every so many steps, after k was counted."""
        state.advance()
        total = max(state.problem.total_steps, 1)
        risen = (state.n / total - self.start) / (1 - self.start)
        if state.n % self.every == 0 and risen > 0:
            state.counted()
            for u in state.unit_sets:
                params = state.live
                norms, d = u.norms(params), torch.ones(u.n)
                if self.sizes:
                    each = u.sums(torch.ones_like(u.matrix(params)))
                    d = each / each.mean()
                state.show(u.scaled(params, shrunk(norms, d.to(norms), self.strength * risen, state.k[u.name])))
        return state

    def finish(self, state: _State) -> Solution:
        """The projection at the final levels."""
        state.land(1.0)
        return state.solution()


def shrunk(norms: Tensor, d: Tensor, strength: float, k: int) -> Tensor:
    """The factor of each group in the proximal step of strength S_k: u / (u + strength d).

    u = clip(alpha a - b, 0, 1), a = sqrt(d) |W|, b = strength d, with the sum k: alpha is where a piecewise linear
    function of n rising pieces and n that end meets k, found by sorting its 2 n corners. O(n log n).
    """
    there = norms > 1e-12 * norms.max()
    if int(there.sum()) <= k:
        return there / (1 + strength * d)
    a, b = (d.sqrt() * norms).double(), strength * d.double()
    a = a.clamp_min(1e-30 * float(a.max()))
    corners, order = torch.cat([b / a, (1 + b) / a]).sort()
    slope = torch.cat([a, -a])[order].cumsum(0)[:-1]
    value = torch.cat([a.new_zeros(1), (slope * corners.diff()).cumsum(0)])
    at = int(torch.searchsorted(value, float(k))) - 1
    alpha = corners[at] + (k - value[at]) / slope[at] if k else corners[0]
    u = (alpha * a - b).clamp(0, 1)
    return (u / (u + b).clamp_min(1e-30)).to(norms)


@dataclass
class _State(State):
    """`k` per set of units."""

    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"unit_sets"}

    k: dict[str, int] = field(default_factory=dict)
    unit_sets: tuple[Units, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unit_sets = units(self.problem)

    def counted(self) -> _State:
        """How many units the budget has room for."""
        live = self.live
        self.levels, near = self.project(1.0)
        self.residuals = gaps(live, near)
        self.k = {u.name: int(u.kept({**live, **near}).sum()) for u in self.unit_sets}
        return self

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The projection of `weights` at the final levels."""
        return {k: w.clone() for k, w in {**weights, **self.project(1.0, weights)[1]}.items()}
