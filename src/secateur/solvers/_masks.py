"""Learned masks: a score behind each weight decides what the net shows, and the loss's gradient moves the score."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from secateur import schedules
from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._state import State, gaps
from secateur.terms import views
from secateur.terms.feasible import Importance
from secateur.types import Level, Solution, Stage, Weights

_TINY = 1e-30  # of a score, beside a mean of 1: a weight that is zero has a logarithm too
_SMALLEST = 1e-290  # of w^2 in h = score / w^2
_EVERY, _CHOICES = 40, 10  # steps between two choices; fewer where a ramp would hold less than ten


@dataclass(frozen=True)
class Masked(Solver):
    """What the learned masks share: the weights behind the mask, when it is chosen anew, and when it is settled.

    m, the score of a weight, is what has been learned plus the logarithm of the saliency's h w^2 at the last choice, so
    that a mask that has learned nothing is the projection. The budget is the threshold: its levels are allocated and
    the members chosen with h = e^m / w^2, so that units (rows, blocks) count the sum of e^m. What the loss gains by a
    weight is -g w to first order, g the gradient at what the net shows, of pruned weights too: they may come back.
    """

    rate: float = 0.5
    every: int | None = None
    ramp: float = 0.5
    settle: float = 0.75
    pooled: ClassVar[bool] = False  # do the weights of a row have one score, where rows stay or go as a whole?

    def __post_init__(self) -> None:
        if self.rate < 0 or (self.every is not None and self.every < 1) or not 0 < self.ramp <= self.settle <= 1:
            raise UsageError(
                f"solver {type(self).__module__.rpartition('.')[2]}: rate={self.rate}, every={self.every}, "
                f"ramp={self.ramp}, settle={self.settle}; rate >= 0, every >= 1 and 0 < ramp <= settle <= 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """Sets that are no choice of weights."""
        if term.constraint.before(Stage.SUPPORT, None) is None:
            return None
        return f"a learned mask chooses which weights stay, and {term.constraint.name} gives a weight another form"

    def init(self, problem: Problem) -> Masks:
        """Nothing is pruned and nothing learned."""
        state = Masks(problem, pooled=self.pooled)
        state.begin()
        state.show(state.shown(self._gates(state)))
        return state

    @abstractmethod
    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """Move `state.learned` by what the loss gained by each weight (-g w) at the `gates` that were shown."""

    def gates(self, state: Masks) -> dict[str, Tensor]:
        """Factors in front of the weights that are shown instead of the mask until that settles; none: the mask."""
        return {}

    def step(self, state: Masks) -> State:
        """The weights behind follow the optimizer, the scores the loss; now and then the mask follows the scores."""
        total, gates = state.problem.total_steps, self._gates(state)
        gains = state.follow(gates)
        if state.n < self.settle * total:
            self.learn(state, gains, gates)
        state.advance()
        # The last choice of the ramp comes at its end, or at the last step when it is shorter.
        end = max(min(round(self.ramp * total), total - 1), 1)
        every = self.every or max(min(_EVERY, end // _CHOICES), 1)
        if state.n == end or (state.n % every == 0 and state.n <= max(self.settle * total, end)):
            state.choose(schedules.get("cubic")(min(state.n / end, 1.0)))
        state.show(state.shown(self._gates(state)))
        return state

    def finish(self, state: Masks) -> Solution:
        """The weights behind the mask that the scores choose at the final levels."""
        state.land(1.0, state.latent)
        return state.solution()

    def _gates(self, state: Masks) -> dict[str, Tensor]:
        return self.gates(state) if state.n < self.settle * state.problem.total_steps else {}


@dataclass
class Masks(State):
    """Attributes:
    pooled: has a row one score?
    latent: the weights behind the mask; pruned ones wait where they were.
    worth, learned: the two parts of m, of every parameter that a term acts on, in its shape.
    """

    pooled: bool = False
    latent: dict[str, Tensor] = field(default_factory=dict)
    worth: dict[str, Tensor] = field(default_factory=dict)
    learned: dict[str, Tensor] = field(default_factory=dict)

    @property
    def score(self) -> dict[str, Tensor]:
        """m."""
        return {k: w + self.learned[k] for k, w in self.worth.items()}

    def begin(self) -> None:
        """The weights behind are those that are there."""
        self.latent = {k: w.clone() for k, w in self.live.items()}
        self.weigh()
        self.learned = {k: torch.zeros_like(w) for k, w in self.worth.items()}

    def weigh(self) -> None:
        """log of h w^2, whose mean over all weights is 1; of a row the mean, where it is pooled."""
        h, found = self.problem.importance(), {k: w.square() for k, w in self.latent.items()}
        names = dict.fromkeys(m.param for t in self.problem.terms for m in t.site.members)
        for t in self.problem.terms:
            given = h.get(t.site.name)
            if given is not None:
                worth = views.matrix(t.site, t.constraint.view, self.latent).double().square() * given
                found |= views.write(t.site, t.constraint.view, found, worth)
        found = self.by_row({k: found[k] for k in names})
        mean = sum(float(v.sum()) for v in found.values()) / max(sum(v.numel() for v in found.values()), 1)
        self.worth = {k: (v / (mean or 1.0)).clamp(min=_TINY).log() for k, v in found.items()}

    def follow(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights behind make the optimizer's step, as far as they are shown.

        Returns:
            -g w per scored parameter: what the loss gains by each weight, to first order.
        Raises:
            UsageError: the gradients are gone.
        """
        params = self.problem.params
        moving = [k for k in self.learned if params[k].requires_grad]
        if moving and all(params[k].grad is None for k in moving):
            raise UsageError(
                f"{moving[0]}: a learned mask reads the gradient of the step that was made, and there is none; call "
                "step() before optimizer.zero_grad()"
            )
        held, live = self.shown(gates), self.live
        moved = {k: live[k] - held[k] for k in held}
        gains = {
            k: -self.latent[k] * g if (g := params[k].grad) is not None else 0 * w for k, w in self.learned.items()
        }
        behind = {k: moved[k] * a for k, a in gates.items()}
        if self.frozen is not None:
            self.frozen.mask_(moved)
        self.latent = {k: w + behind.get(k, moved[k]) for k, w in self.latent.items()}
        return gains

    def choose(self, tightness: float) -> None:
        """Levels and members for the scores of today; held is where they are not zero."""
        self.weigh()
        self.levels, near = self.project(tightness, self.latent)
        self.residuals |= gaps(self.latent, near)
        self.freeze({**self.latent, **near})

    def shown(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights behind the mask; behind the gates where there are any."""
        return {**self.candidate(self.latent), **{k: self.latent[k] * a for k, a in gates.items()}}

    def project(
        self, tightness: float, weights: Weights | None = None, importance: Importance | None = None
    ) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """As `State.project`, with the scores for a saliency."""
        at, h, score = {**self.live, **(weights or {})}, {}, self.score
        for t in self.problem.terms:
            w = views.matrix(t.site, t.constraint.view, at).double().square().clamp(min=_SMALLEST)
            h[t.site.name] = views.matrix(t.site, t.constraint.view, score).double().exp() / w
        return super().project(tightness, weights, h if importance is None else importance)

    def by_row(
        self,
        values: Mapping[str, Tensor],
        beside: Mapping[str, Tensor] | None = None,
        of: Callable[[Tensor], Tensor] = lambda rows: rows.mean(dim=1, keepdim=True),
    ) -> dict[str, Tensor]:
        """One number, the mean, of each row for all its weights, where rows go whole and are pooled; else as they are.

        A row in which another term chooses weights keeps their own scores, and is chosen by the sum of those.

        Args:
            values: per scored parameter.
            beside: the same of others; those of norms and biases that go with a channel are added to its row.
            of: [rows, cols] -> [rows, 1], if not the mean.
        """
        out, beside = dict(values), beside or {}
        terms = self.problem.terms if self.pooled else ()
        held = Counter(name for t in terms for name in {m.param for m in t.site.members})
        for t in terms:
            if t.constraint.unit != "row" or any(held[m.param] > 1 for m in t.site.members):
                continue
            site, view = t.site, t.constraint.view
            rows = views.matrix(site, view, out)
            one = of(rows)
            for m in site.removes:
                if m.param in beside and beside[m.param].dim() == 1:
                    alone = replace(site, members=(m,))
                    one = one + views.matrix(alone, view, beside).sum(dim=1, keepdim=True) / rows.shape[1]
            out |= views.write(site, view, out, one.expand_as(rows))
        return out

    def beside(self) -> dict[str, Tensor]:
        """-g w of what no term acts on: biases and norms."""
        params = self.problem.params
        rest = ((k, w, params[k].grad) for k, w in self.latent.items() if k not in self.learned)
        return {k: -w * g for k, w, g in rest if g is not None}

    def beyond(self) -> dict[str, Tensor]:
        """How far m is above the threshold (> 0: it stays), which lies half-way between what stays and what goes.

        Of each parameter; where all stay or all go the threshold lies 1 beside the last of them. In sets whose units
        are larger than a score a weight may stay below the threshold, or go above it: its unit's side counts.
        """
        out = {}
        for k, m in self.score.items():
            mask = self.frozen.masks.get(k) if self.frozen is not None else None
            kept = torch.ones_like(m, dtype=torch.bool) if mask is None else mask != 0
            low = m[kept].min() if bool(kept.any()) else m.max() + 2.0
            high = m[~kept].max() if bool((~kept).any()) else low - 2.0
            out[k] = (m - (low + high) / 2).abs() * torch.where(kept, 1.0, -1.0)
        return out

    def tracked(self) -> dict[str, Tensor]:
        return self.latent


def balanced(gains: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each output's gains over their root mean square, so that features whose gradients are small learn as fast."""
    out = {}
    for k, g in gains.items():
        rms = g.square().mean(dim=tuple(range(1, g.dim())) if g.dim() > 1 else None, keepdim=True).sqrt()
        out[k] = g / rms.clamp(min=_TINY)
    return out


def levelled(gains: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each parameter's gains over their root mean square."""
    return {k: g / g.square().mean().sqrt().clamp(min=_TINY) for k, g in gains.items()}


def sharpness(state: Masks, end: float, settle: float) -> float:
    """s of a gate's slope: from 1 geometrically to `end` where the mask settles."""
    return float(end ** min(state.n / max(settle * state.problem.total_steps, 1.0), 1.0))
