"""HESSO: period by period the least salient units fade to zero, exactly; CRIC looks along that way first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import TRIAL, Problem
from secateur.errors import UsageError
from secateur.solvers._periods import Leads, Led
from secateur.terms import views

_TINY, _MOST = 1e-30, 1e30  # of what is divided by; of an importance, where a unit is zero already
_SHARES = (0.25, 0.5, 0.75)  # of a layer's units, without which CRIC asks for the loss


@dataclass(frozen=True)
class Hesso(Leads):
    """Of `periods` periods of D steps, each marks what the projection drops by HESSO's own score; in step t of it the
    marked units are multiplied by (D - t - 1) / (D - t), which ends at 0; there they stay.

    The score of a unit x with the optimizer's last step d (momentum, Adam's scaling and decay in it) is the mean of
    five terms, each over its norm on all units: |x|, |x| per weight, 1 + cos(x, d), |<x, d>| and <x, d>^2 / 2. d is the
    step as it was made: a unit that grows scores high. (The public code takes the cosine with the gradient's sign,
    which keeps what shrinks.) The scores of the steps since the last choice are added. The budget compares their
    squares over layers, as it does those of weights, and says how many go.

    Units that are neither whole rows nor whole columns have no cosine: behind a ReLU the inputs are not negative, so
    that a step has one sign on all weights of an output, and of a falling one the negative weights would stay alone: it
    never fires again. (Digits CNN, 10 % of single weights, 25 steps and 11 of retraining: 30 % accuracy with the
    cosine, 83 % without.)

    With CRIC (`cycles` > 0) scores are sampled on the way to zero before anything is pruned for good: in a cycle the
    least salient units of the whole budget fade over `samples` steps, all units are scored at every step and the
    weights are put back; the next cycle takes those that came among the least on the way and had not been tried. It
    ends when there are none, or when another would leave no step for the periods, which come after it. The sum of all
    samples is then the score of all periods, with a sixth term: the loss (`Problem.trial`) of the net without the
    lowest 25, 50 and 75 % of a layer's units, their mean over the number of units, over the norm on all. Rows under one
    budget want it, or a layer is left with hardly any (the same net, 25 % of the weights, 12 epochs: 18 % accuracy, 88
    with three cycles of two samples).

    Args:
        start, end: shares of the steps between which the periods lie; CRIC's cycles come out of the same steps.
    Reference: Chen et al., HESSO, 2024, arXiv:2409.09085.
    """

    cycles: int = 0
    samples: int = 5
    reference: ClassVar[str] = "Chen et al., HESSO, 2024, arXiv:2409.09085"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles < 0 or self.samples < 1:
            raise UsageError(f"solver hesso: cycles={self.cycles}, samples={self.samples}; >= 0 and >= 1 needed")
        object.__setattr__(self, "needs", frozenset({TRIAL} if self.cycles else ()))

    def init(self, problem: Problem) -> _State:
        """Nothing goes yet."""
        return _State(problem, periods=self.planned(problem))

    def step(self, state: _State) -> _State:
        """A step of CRIC, or of a period: choose at its start, fade, hold what is gone."""
        state.hold()
        room = state.sample > 0 or state.n + self.samples < state.until
        if state.cycle < self.cycles and state.n >= state.periods.start and room:
            self.look(state)
        else:
            self.lead(state)
        state.advance()
        state.remember()
        return state

    def look(self, state: _State) -> None:
        """One sample of CRIC; a cycle's end puts the weights back, and lets the periods begin after it."""
        if state.sample == 0:
            state.begin_cycle()
        scores = state.scores()
        state.add({k: s + state.layers[k] for k, s in scores.items()})
        state.fresh = {k: state.fresh[k] | (m & ~state.tried[k]) for k, m in state.least(scores).items()}
        state.sample += 1
        state.show(state.saved)
        if state.sample < self.samples:
            state.fade(1 - state.sample / self.samples)
            return
        state.sample, state.going = 0, {}
        more = any(bool(m.any()) for m in state.fresh.values())
        state.cycle = state.cycle + 1 if more else self.cycles
        state.begin_periods(state.n + 1)

    def lead(self, state: _State) -> None:
        """One step of a period."""
        if not self.cycles:
            state.add(state.scores())
        period, t = state.periods.place(state.n)
        if not 0 <= period < state.periods.n:
            return
        if t == 0:
            state.choose(state.importance(state.total or state.scores()))
            state.total = state.total if self.cycles else {}
        left = state.periods.length - t
        state.fade((left - 1) / left)
        if left == 1:
            state.gone = dict(state.going)


@dataclass
class _State(Led):
    """Of CRIC: the cycle and its sample, the step that the periods begin at after it, the weights that a cycle began
    with, the sum of the scores, the sixth term of a layer's units; [units] of each set those among the least that have
    been tried, and those that are to be. `until` is the periods' end.
    """

    cycle: int = 0
    sample: int = 0
    since: int = 0
    saved: dict[str, Tensor] = field(default_factory=dict)
    total: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, float] = field(default_factory=dict)
    tried: dict[str, Tensor] = field(default_factory=dict)
    fresh: dict[str, Tensor] = field(default_factory=dict)
    until: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.until = self.periods.end

    def scores(self) -> dict[str, Tensor]:
        """Of every unit, by the weights before the optimizer's last step and that step."""
        live, terms = self.live, {}
        for u in self.unit_sets:
            x, d = u.matrix(self.before), u.matrix(live) - u.matrix(self.before)
            size, step, along = u.norms(self.before), u.sums(d.square()).clamp_min(_TINY).sqrt(), u.sums(x * d)
            cosine = along / (size * step) if u.whole else torch.zeros_like(size)
            each = u.sums(torch.ones_like(x))
            terms[u.name] = torch.stack([size, size / each, (1 + cosine).clamp(min=0), along.abs(), along.square() / 2])
        whole = torch.hstack(list(terms.values())).norm(dim=1, keepdim=True).clamp_min(_TINY)
        return {k: (t / whole).mean(0) for k, t in terms.items()}

    def layer_term(self, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """A fifth of it, as the others count in the mean; one number for all units of a set."""
        trial, live, found = self.problem.trial, self.live, {}
        assert trial is not None, "asked for in `needs`"
        for u in self.unit_sets:
            rank = scores[u.name].argsort(stable=True).argsort()
            without = (u.scaled(live, (rank >= int(share * u.n)).float()) for share in _SHARES)
            found[u.name] = max(sum(trial(weights) for weights in without), 0.0) / max(len(_SHARES) * u.n, 1)
        norm = sum(u.n * found[u.name] ** 2 for u in self.unit_sets) ** 0.5
        return {k: loss / max(5 * norm, _TINY) for k, loss in found.items()}

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

    def fade(self, factor: float) -> None:
        """What goes, times the factor."""
        live = self.live
        for k, going in self.going.items():
            live[k].mul_(torch.where(going, factor, 1.0))

    def begin_cycle(self) -> None:
        """The least units that have not been tried are to go."""
        self.saved = {k: w.clone() for k, w in self.live.items()}
        if not self.tried:
            scores = self.scores()
            self.layers, self.fresh = self.layer_term(scores), self.least(scores)
        self.tried = {k: m | self.tried.get(k, m) for k, m in self.fresh.items()}
        stays = {k: torch.ones_like(w) for k, w in self.before.items()}
        for u in self.unit_sets:
            stays |= u.scaled(stays, (~self.fresh[u.name]).float())
        self.going = {k: m == 0 for k, m in stays.items()}
        self.fresh = {k: torch.zeros_like(m) for k, m in self.fresh.items()}

    def begin_periods(self, step: int) -> None:
        """They share the steps that are left."""
        self.since, self.periods = step, self.periods.between(step, self.until)

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """One more sample."""
        self.total = {k: self.total.get(k, 0.0) + s for k, s in scores.items()}

    def least(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the whole budget has no room for, by these scores."""
        near = self.project(1.0, self.before, self.importance(scores))[1]
        return {u.name: ~u.kept({**self.live, **near}) for u in self.unit_sets}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, object]) -> None:
        super().load_state_dict(tensors, facts)
        if self.since:
            self.begin_periods(self.since)
