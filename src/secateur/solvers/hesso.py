"""HESSO: period by period the least salient units fade to zero, exactly; CRIC looks along that way first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._periods import Led, Periods
from secateur.solvers._units import refusal
from secateur.terms import views
from secateur.types import Solution

_TINY, _MOST = 1e-30, 1e30  # of what is divided by; of an importance, where a unit is zero already


@dataclass(frozen=True)
class Hesso(Solver):
    """Of `periods` periods of D steps, each marks what the projection drops by HESSO's own score; in step t of it the
    marked units are multiplied by (D - t - 1) / (D - t), which ends at 0; there they stay.

    The score of a unit x with the optimizer's last step d (momentum, Adam's scaling and decay in it) is the mean of
    five terms, each over its norm on all units: |x|, |x| per weight, 1 + cos(x, d), |<x, d>| and <x, d>^2 / 2. d is the
    step as it was made: a unit that grows scores high. (The public code takes the cosine with the gradient's sign,
    which keeps what shrinks.) The scores of the steps since the last choice are added. The budget compares their
    squares over layers, as it does those of weights, and says how many go.

    With CRIC (`cycles` > 0) scores are sampled on the way to zero before anything is pruned for good: in a cycle the
    least salient units of the whole budget fade over `samples` steps, all units are scored at every step and the
    weights are put back; the next cycle takes those that came among the least on the way and had not been tried. It
    ends when there are none. The sum of all samples is then the score of all periods. CRIC's other term, the loss of a
    batch without some units of a layer, is left out.

    Args:
        start, end: shares of the steps between which the periods lie; CRIC's cycles come out of the same steps.
    Reference: Chen et al., HESSO, 2024, arXiv:2409.09085.
    """

    periods: int = 10
    start: float = 0.1
    end: float = 0.5
    cycles: int = 0
    samples: int = 5
    reference: ClassVar[str] = "Chen et al., HESSO, 2024, arXiv:2409.09085"

    def __post_init__(self) -> None:
        Periods.check("hesso", self.start, self.end, self.periods)
        if self.cycles < 0 or self.samples < 1:
            raise UsageError(f"solver hesso: cycles={self.cycles}, samples={self.samples}; >= 0 and >= 1 needed")

    def refuses(self, term: Term) -> str | None:
        """Sets that are no supports."""
        return refusal(term, "hesso fades")

    def init(self, problem: Problem) -> _State:
        """Nothing goes yet."""
        return _State(problem, periods=Periods.over(problem.total_steps, self.start, self.end, self.periods))

    def step(self, state: _State) -> _State:
        """A step of CRIC, or of a period: choose at its start, fade, hold what is gone."""
        state.hold()
        (period, t), looking = state.periods.place(state.n), state.cycle < self.cycles
        if period >= 0 and looking and state.n + self.samples - state.sample < state.problem.total_steps:
            self.look(state)
        else:
            if not self.cycles:
                state.add(state.scores())
            if 0 <= period < state.periods.n:
                if t == 0 or not state.going:
                    state.choose(state.importance(state.total or state.scores()))
                    if not self.cycles:
                        state.total = {}
                left = state.periods.length - t
                state.fade(state.going, (left - 1) / left)
                if left == 1:
                    state.gone = dict(state.going)
        state.advance()
        state.remember()
        return state

    def look(self, state: _State) -> None:
        """One sample of CRIC; a cycle's end puts the weights back."""
        if state.sample == 0:
            state.begin_cycle()
        scores = state.scores()
        state.add(scores)
        state.fresh = {k: state.fresh[k] | (m & ~state.tried[k]) for k, m in state.least(scores).items()}
        state.sample += 1
        state.show(state.saved)
        if state.sample < self.samples:
            state.fade(state.going, 1 - state.sample / self.samples)
            return
        state.sample, state.going = 0, {}
        more = any(bool(m.any()) for m in state.fresh.values())
        state.cycle = state.cycle + 1 if more else self.cycles

    def finish(self, state: _State) -> Solution:
        """The projection at the final levels."""
        state.land(1.0)
        return state.solution()


@dataclass
class _State(Led):
    """Of CRIC: the cycle and its sample, the weights that it began with, the sum of the scores, [units] of
    each set; the units among the least that have been tried, and those that are to be.
    """

    cycle: int = 0
    sample: int = 0
    saved: dict[str, Tensor] = field(default_factory=dict)
    total: dict[str, Tensor] = field(default_factory=dict)
    tried: dict[str, Tensor] = field(default_factory=dict)
    fresh: dict[str, Tensor] = field(default_factory=dict)

    def scores(self) -> dict[str, Tensor]:
        """Of every unit, by the weights before the optimizer's last step and that step."""
        live, terms = self.live, {}
        for u in self.unit_sets:
            x, d = u.matrix(self.before), u.matrix(live) - u.matrix(self.before)
            size, step, along = u.norms(self.before), u.sums(d.square()).clamp_min(_TINY).sqrt(), u.sums(x * d)
            each = u.sums(torch.ones_like(x))
            terms[u.name] = torch.stack(
                [size, size / each, (1 + along / (size * step)).clamp(min=0), along.abs(), along.square() / 2]
            )
        whole = torch.hstack(list(terms.values())).norm(dim=1, keepdim=True).clamp_min(_TINY)
        return {k: (t / whole).mean(0) for k, t in terms.items()}

    def importance(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """h with sum h w^2 of a unit its score squared; of a joint set by the units of its coarsest part."""
        found: dict[str, Tensor] = {}
        for u in sorted(self.unit_sets, key=lambda u: -u.n):
            term = next(t for t in self.problem.terms if t.site.name == u.site.name)
            w = views.matrix(term.site, u.view, self.before)
            of = u.of[:, : w.shape[1]]
            weight = w.new_zeros(u.n).index_add(0, of.flatten(), w.flatten().square())
            found[term.site.name] = (scores[u.name].square() / weight.clamp_min(_TINY))[of].clamp(max=_MOST)
        return found

    def fade(self, masks: Mapping[str, Tensor], factor: float) -> None:
        """What the masks mark, times the factor."""
        live = self.live
        for k, going in masks.items():
            live[k].mul_(torch.where(going, factor, 1.0))

    def begin_cycle(self) -> None:
        """The least units that have not been tried are to go."""
        self.saved = {k: w.clone() for k, w in self.live.items()}
        if not self.tried:
            self.fresh = self.least(self.scores())
        self.tried = {k: m | self.tried[k] if k in self.tried else m for k, m in self.fresh.items()}
        dropped: dict[str, Tensor] = {}
        for u in self.unit_sets:
            dropped |= u.scaled(
                {**{k: torch.ones_like(w) for k, w in self.live.items()}, **dropped}, (~self.fresh[u.name]).float()
            )
        self.going = {k: m == 0 for k, m in dropped.items()}
        self.fresh = {k: torch.zeros_like(m) for k, m in self.fresh.items()}

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """One more sample."""
        self.total = {k: self.total.get(k, 0.0) + s for k, s in scores.items()}

    def least(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the whole budget has no room for, by these scores."""
        near = self.project(1.0, self.before, self.importance(scores))[1]
        return {u.name: ~u.kept({**self.live, **near}) for u in self.unit_sets}
