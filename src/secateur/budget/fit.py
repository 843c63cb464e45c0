"""The last levels: tried, written and measured until the network meets its limits and little of them is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from secateur.budget import kinds
from secateur.contracts import Term
from secateur.errors import BudgetError
from secateur.terms import views
from secateur.types import Level, Limit, Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor

COARSE = 0.05  # a larger share than this is not left unspent before so many single steps were tried
_FITS, _TOP_UPS = 12, 12
_LOOSER, _UNSPENT = 8, 0.02  # so often other levels are tried while more than this share of the limit is left

Levels = dict[str, Level]
Costs = Mapping[str, float]  # by kind of limit


class Pays(Protocol):
    """Who answers levels within limits, beside a fixed part (`purse.Purse`)."""

    terms: tuple[Term, ...]
    limits: tuple[Limit, ...]
    fixed: dict[str, float]

    def levels(
        self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float, strict: bool = False
    ) -> Levels:
        """What the limits buy; BudgetError: by the estimates nothing."""

    def tightest(self, error: BudgetError, weights: Weights, importance: Mapping[str, Tensor | None]) -> Levels:
        """The cheapest levels that the estimates know."""

    def most_fixed(self, error: BudgetError) -> tuple[str, float]:
        """The kind of the refused limit, and the fixed part beside which just the tightest levels are within it."""

    def missed(self, kind: str, smallest: float, site: str | None) -> BudgetError:
        """The refusal when no levels that were tried meet the limit."""


class Fit:
    """A search by bookings: levels are asked for beside a fixed part, which what they really cost then corrects.

    Args:
        purse: answers levels; its `fixed` is what is searched.
        costs_at: levels -> what the network that they give costs now.
    """

    def __init__(
        self,
        purse: Pays,
        weights: Weights,
        importance: Mapping[str, Tensor | None],
        costs_at: Callable[[Levels], Costs],
    ) -> None:
        self.purse, self.weights, self.importance, self.costs_at = purse, weights, importance, costs_at
        self.best: Levels | None = None
        self.nearly: Levels | None = None  # within the limits, though not within the margin
        self.last: Levels | None = None
        self.costs: Costs = {}  # of the last
        self.used = 0.0  # the largest share of a limit that the best ones spend
        self.fits: dict[str, float] = {}  # the fixed part at which the best levels were found
        self.bursts: dict[str, float] = {}  # and the latest at which a limit was missed
        self.smallest: dict[str, float] = {}
        self.push = 1.05
        self.site: str | None = None  # that is in the way, by the estimates

    def levels(self) -> Levels:
        """The answer. BudgetError: with the smallest size that was reached."""
        tries = 0
        for _ in range(_FITS):
            try:
                levels = self.purse.levels(self.weights, self.importance, 1.0, strict=True)
            except BudgetError as e:
                if self._refused(e):
                    break
                continue
            if levels == self.best or self._exhausted(levels):
                break
            wrong = self._judged(levels)
            tries += self.best is not None
            if self.used >= 1 - _UNSPENT or tries > _LOOSER:
                break
            self._book(wrong)
        found = self.nearly if self.best is None else self.best
        if found is None:
            kind = next(iter(self.smallest))
            raise self.purse.missed(kind, self.smallest[kind], self.site)
        if self.best is not None and self.used < 1 - COARSE:
            found = topped_up(self.purse.terms, self.purse.limits, found, self.used, self.costs_at, self.weights)
        return found

    def _refused(self, error: BudgetError) -> bool:
        """The estimates see no way: is that the end? What is fixed dies with units, the tightest levels may fit."""
        self.site = error.site
        if self.best is not None or self.nearly is not None:
            return True
        levels = self.purse.tightest(error, self.weights, self.importance)
        self.last, self.costs = levels, self.costs_at(levels)
        limits = self.purse.limits
        over = {x.kind: self.costs[x.kind] for x in limits if self.costs[x.kind] > x.value}
        if over:
            self.smallest = {k: min(self.smallest.get(k, math.inf), cost) for k, cost in over.items()}
            return True
        # A net of one weight a layer is seldom the answer: between it and the levels that missed lies a better.
        self.best, self.used = levels, _share(self.costs, limits)
        kind, most = self.purse.most_fixed(error)
        self.fits, self.bursts = {**self.purse.fixed, kind: most}, self.bursts or {kind: 0.0}
        self.purse.fixed[kind] = (most + self.bursts.get(kind, 0.0)) / 2
        return False

    def _exhausted(self, levels: Levels) -> bool:
        """Price these levels; True: what could be had is gone from these weights."""
        before, self.costs = self.costs, self.costs if levels == self.last else self.costs_at(levels)
        self.last = levels
        return self.costs == before and self.best is not None

    def _judged(self, levels: Levels) -> dict[str, float]:
        """Keep what fits; by how much the limits are exceeded, those that are, else all of them (what is left: < 0)."""
        limits, costs = self.purse.limits, self.costs
        over = {x.kind: costs[x.kind] - allowed(x) for x in limits}
        missed = {k: v for k, v in over.items() if v > 0}
        if missed:
            if all(costs[x.kind] <= x.value for x in limits):
                self.nearly = levels
            # Bits are coarse steps: a push of a few bytes that moves nothing is followed by larger ones.
            stuck = all(costs[k] >= self.smallest.get(k, math.inf) for k in missed)
            self.push = 2 * self.push if stuck else 1.05
            self.bursts = dict(self.purse.fixed)
            self.smallest = {k: min(self.smallest.get(k, math.inf), costs[k]) for k in missed}
            return {k: self.push * v for k, v in missed.items()}
        best, now, used = self.best, _share(costs, limits), self.used
        looser = sum(self.purse.fixed.values()) < sum(self.fits.values())  # at the same size: the levels that keep more
        if best is None or now > used or (now == used and looser):
            self.best, self.used = levels, now
        self.fits = dict(self.purse.fixed)
        return over

    def _book(self, wrong: Mapping[str, float]) -> None:
        """Correct the fixed part; sizes may answer more steeply than the estimates: halve a gap that is known."""
        fixed = self.purse.fixed
        for kind, value in wrong.items():
            if self.fits and self.bursts:
                fixed[kind] = (self.fits.get(kind, 0.0) + self.bursts.get(kind, 0.0)) / 2
            else:
                fixed[kind] = fixed.get(kind, 0.0) + value


def allowed(limit: Limit) -> float:
    """The limit less what its meter keeps free for the training of values."""
    return limit.value * (1 - kinds.meter(limit.kind).margin)


def topped_up(
    terms: tuple[Term, ...],
    limits: tuple[Limit, ...],
    levels: Levels,
    used: float,
    costs_at: Callable[[Levels], Costs],
    weights: Weights,
) -> Levels:
    """One unit more here and there, where units are coarse or the last ones cannot matter: what fits is taken."""
    open_terms, tries = [t for t in terms if not t.given], 0
    while open_terms and tries < _TOP_UPS and used < 1 - COARSE:
        for term in list(open_terms):
            more = _one_more(term, levels[term.site.name], weights)
            trial = {**levels, term.site.name: more}
            tries += more is not None
            costs = {} if more is None else costs_at(trial)
            now = _share(costs, limits) if costs else 0.0
            if costs and now > used and all(costs[x.kind] <= allowed(x) for x in limits):
                levels, used = trial, now
            else:
                open_terms.remove(term)
            if tries >= _TOP_UPS or used >= 1 - COARSE:
                break
    return levels


def _share(costs: Costs, limits: tuple[Limit, ...]) -> float:
    return max((costs[x.kind] / x.value for x in limits), default=0.0)


def _one_more(term: Term, level: Level, weights: Weights) -> Level:
    """The next level of the form or the (first) support part, None where there is none."""
    parts = term.constraint.split(level)
    at = next((i for i, (part, _) in enumerate(parts) if part.stage != Stage.VALUES), None)
    where = None if at is None else parts[at][1]
    if at is None or not isinstance(where, int):
        return None
    menu = parts[at][0].levels(views.shape(term.site, term.constraint.view, weights))
    more = next((x for x in menu if isinstance(x, int) and x > where), None)
    return (*level[:at], more, *level[at + 1 :]) if isinstance(level, tuple) and more is not None else more
