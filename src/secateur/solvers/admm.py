"""ADMM: the loss pulls one way, the set the other, and a dual remembers who has been giving in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from secateur.contracts import Problem, Solver
from secateur.errors import UsageError
from secateur.solvers._stages import Stage, check, plan
from secateur.solvers._state import State, gaps
from secateur.terms.frozen import Frozen
from secateur.types import Level, Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-12  # curvature floor: a site whose gradients vanish must still be reached by the ramp


@dataclass(frozen=True)
class Admm(Solver):
    """min f(W) s.t. W = Z, Z in S by scaled ADMM with inexact W-steps (the caller's optimizer).

    Every `round_steps` steps: Z = Proj_S(W + U), U = U + W - Z. In between every optimizer step is followed by the
    exact proximal step of the penalty, W = (W' + a (Z - U)) / (1 + a) with a = lr * rho: stable for any rho, and
    no penalty gradient that Adam would rescale. Adam's own metric is diag(sqrt(v)), so a scalar `a` is the penalty
    rho * sqrt(v_i): the same metric as a projection with the saliency |w| v^(1/4).

    rho is c times a curvature estimate of the site, in the optimizer's metric: the larger of the empirical Fisher
    (batch size times the second moment v) and of the secant, a step's force over the site's weights (root mean
    squares). The second is needed because Fisher vanishes where a net fits its data, and the noise of the steps does
    not: with Fisher alone LeNet-5 never closed the gap between W and Z. c goes geometrically from `start` to `end` over
    the rounds of a stage and stops once the relative primal residual is below `tolerance`. When rho changes, U is
    rescaled so that the multiplier rho * U stays. The dual is carried on from stage to stage.

    Args:
        round_steps: optimizer steps of a W-step; each round restarts the learning rate.
        start, end: rho in units of the curvature, at the first and at the last round of a stage.
        metric: `site`: one rho per site; `weight`: rho_i proportional to each weight's own curvature (the exact answer
            for a separable quadratic when the projection is weighted by it as well).
        proximal: False adds rho/2 ||W - Z + U||^2 to the loss instead (for plain SGD, as in the first papers).
        stages, shares: progressive tightness, as for `gradual`.
        ramp: fraction of a stage's rounds in which the tightness rises; 0 = at once (the papers).
        tolerance: relative primal residual at which rho stops growing.
    Reference: Zhang et al., ECCV 2018, arXiv:1804.03294; Boyd et al. 2011, sec. 3.3 and 9.1; progressive stages: Ye et
        al. 2018, arXiv:1810.07378.
    """

    round_steps: int = 200
    start: float = 0.1
    end: float = 10.0
    metric: Literal["site", "weight"] = "site"
    proximal: bool = True
    stages: int | tuple[float, ...] = 2
    shares: tuple[float, ...] = ()
    ramp: float = 0.5
    tolerance: float = 0.01
    needs: ClassVar[frozenset[str]] = frozenset({"second_moment"})
    reference: ClassVar[str] = "Zhang et al. 2018, arXiv:1804.03294"

    def __post_init__(self) -> None:
        if self.round_steps < 1 or not 0 <= self.start <= self.end or not 0 <= self.ramp <= 1:
            raise UsageError(
                f"solver admm: round_steps={self.round_steps}, start={self.start}, end={self.end}, ramp={self.ramp}; "
                "round_steps >= 1, 0 <= start <= end and 0 <= ramp <= 1 needed"
            )
        if self.metric not in ("site", "weight"):
            raise UsageError(f"solver admm: metric={self.metric!r}; `site` or `weight` is needed")
        check(self.stages, self.shares)

    def init(self, problem: Problem) -> _State:
        """Z = Proj(W), U = 0."""
        state = _State(problem, plan(self.stages, self.shares, problem.total_steps), solver=self)
        state.begin()
        return state

    def penalty(self, state: _State) -> Tensor | float:
        """sum rho/2 ||W - Z + U||^2 when `proximal` is off, else 0: the step takes it exactly."""
        return 0.0 if self.proximal else state.penalty()

    def step(self, state: _State) -> _State:
        """The proximal step; at the end of a round the updates of Z, U and rho."""
        if self.proximal:
            state.pull()
        state.advance()
        if state.round_changed:
            state.next_round()
        return state

    def finish(self, state: _State) -> Solution:
        """W inside the structure of Proj(W + U) at the final levels: the hard mapping."""
        levels, weights = state.mapped(state.live, 1.0)
        worst = max(state.residuals.values(), default=0.0)
        outcome = "converged" if worst <= max(self.tolerance, 0.1) else "not_converged"
        return Solution(weights, levels, outcome, dict(state.residuals))


@dataclass
class _State(State):
    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"solver"}

    solver: Admm = field(kw_only=True)
    round: int = 0  # index into `rounds`
    rho: dict[str, float] = field(default_factory=dict)
    z: dict[str, Tensor] = field(default_factory=dict)
    u: dict[str, Tensor] = field(default_factory=dict)
    shape: dict[str, Tensor] = field(default_factory=dict)  # metric="weight": curvature relative to the site's mean
    churn: float = 0.0  # fraction of the support that the last projection changed
    curvature: dict[str, float] = field(default_factory=dict)
    factor: float = 0.0  # c: rho in units of the curvature
    _target: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.rounds = [(s, r, at, n) for s in self.plan for r, (at, n) in enumerate(_rounds(s, self.solver))]
        self.boundaries = {at for _, _, at, _ in self.rounds if at > 0}

    @property
    def span(self) -> tuple[int, int]:
        """Start and length of the present round: the learning rate restarts with it."""
        _, _, at, n = self.rounds[self.round]
        return at, n

    def advance(self) -> None:
        self.n += 1
        self.round_changed = self.n in self.boundaries

    @property
    def tightness(self) -> float:
        """Of the present round."""
        stage, r, _, _ = self.rounds[self.round]
        rising = math.ceil(self.solver.ramp * self._n_rounds(stage))
        share = 1.0 if rising == 0 else min(1.0, (r + 1) / rising)
        return stage.low + (stage.high - stage.low) * share

    def begin(self) -> None:
        self.factor = self.solver.start
        self.measure_curvature()
        self.levels, self.z = self.project(self.tightness)
        self.u = {k: v.new_zeros(v.shape) for k, v in self.z.items()}
        self._set_rho()

    def next_round(self) -> None:
        """Z and U from the round that ends; then the new round's rho."""
        before = {k: v != 0 for k, v in self.z.items()}
        live = self.live
        self.levels, self.z = self.project(self.tightness, self.shifted(live))
        self.residuals |= gaps(live, self.z)
        self.u |= {k: self.u[k] + live[k] - z for k, z in self.z.items()}
        changed = sum(int((before[k] != (z != 0)).sum()) for k, z in self.z.items() if k in before)
        self.churn = changed / max(sum(int(z.count_nonzero()) for z in self.z.values()), 1)
        old_stage = self.rounds[self.round][0]
        self.round = min(self.round + 1, len(self.rounds) - 1)
        stage, r, _, _ = self.rounds[self.round]
        if stage is not old_stage:
            self.measure_curvature()
        if max(self.residuals.values(), default=0.0) > self.solver.tolerance or r == 0:
            n = self._n_rounds(stage)
            grown = (self.solver.end / self.solver.start) ** (r / (n - 1)) if n > 1 and self.solver.start else 1.0
            self.factor = self.solver.start * grown
        self._set_rho()

    def shifted(self, weights: Weights) -> dict[str, Tensor]:
        """W + U."""
        return {k: weights[k] + u for k, u in self.u.items()}

    def pull(self) -> None:
        """W <- (W + a (Z - U)) / (1 + a), a = lr * rho, in one pass over each tensor."""
        lr, live = self.problem.learning_rate(), self.live
        for k, target in self._target.items():
            if k in self.shape:
                share = self.shape[k] * (lr * self.rho[k])
                live[k].lerp_(target, share / (1.0 + share))
            else:
                a = lr * self.rho[k]
                live[k].lerp_(target, a / (1.0 + a))

    def penalty(self) -> Tensor | float:
        total: Tensor | float = 0.0
        for k, target in self._target.items():
            gap = (self.problem.params[k] - target).square()
            total = total + 0.5 * self.rho[k] * (gap * self.shape[k] if k in self.shape else gap).sum()
        return total

    def measure_curvature(self) -> None:
        """Of each site, seen in the optimizer's metric: under Adam divided by sqrt(v), so that a step's force is 1."""
        live = self.live
        for k in {m.param for t in self.problem.terms for m in t.site.members}:
            v = self.problem.statistics(k, "second_moment")
            if v is None:
                self.curvature[k] = 1.0
                continue
            h = (v.sqrt() if self.problem.adaptive else v) * self.problem.examples
            mean = max(float(h.mean()), _TINY)
            force = 1.0 if self.problem.adaptive else float(v.mean()) ** 0.5
            size = float(live[k].square().sum() / max(int(live[k].count_nonzero()), 1)) ** 0.5
            self.curvature[k] = max(mean, force / size if size else 0.0)
            if self.solver.metric == "weight":
                # A floor of 1 % of the mean: weights without any curvature must still reach their target.
                self.shape[k] = (h / mean).clamp_min(0.01).to(live[k].dtype)

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """`weights` inside the structure of Proj(W + U) at today's tightness."""
        return self.mapped(weights, self.tightness)[1]

    def mapped(self, weights: Weights, tightness: float) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """The levels of Proj(W + U), and `weights` inside its structure."""
        out = {k: v.clone() for k, v in weights.items()}
        levels, near = self.project(tightness, self.shifted(out))
        Frozen(self.problem.terms, levels, {**out, **near}, self.problem.companions).apply_(out)
        return levels, out

    def numbers(self) -> dict[str, float]:
        return {**super().numbers(), "rho": self.factor, "mask_churn": self.churn}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        super().load_state_dict(tensors, facts)
        self._aim()

    def _n_rounds(self, stage: Stage) -> int:
        return sum(1 for s, *_ in self.rounds if s is stage)

    def _set_rho(self) -> None:
        new = {k: self.factor * self.curvature[k] for k in self.z if k in self.curvature}
        for k, rho in new.items():
            # The unscaled multiplier rho * U must not jump (rho = 0 carries no multiplier).
            self.u[k] = self.u[k] * (self.rho[k] / rho) if k in self.rho and rho else self.u[k]
        self.rho = new
        self._aim()

    def _aim(self) -> None:
        live = self.live
        # Same memory layout as the parameter, so that the pull is one contiguous pass (channels_last kernels).
        self._target = {k: live[k].clone().copy_(self.z[k] - self.u[k]) for k in self.rho}


def _rounds(stage: Stage, solver: Admm) -> list[tuple[int, int]]:
    """(start, length) of the rounds of a stage; a last round shorter than half joins the one before."""
    n = max(1, round(stage.length / solver.round_steps))
    edges = [stage.start + round(stage.length * i / n) for i in range(n + 1)]
    return [(a, b - a) for a, b in pairwise(edges) if b > a] or [(stage.start, 1)]
