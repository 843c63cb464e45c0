"""The budget while the weights move: estimates in front, the written file behind.

The allocator prices tensors by estimates; the file also holds the graph, the biases and whatever dead units left.
`Purse` closes that loop: it measures the compressed network that today's weights would give (project, cut, export,
pack), and books the difference between that and the estimates as the fixed part of the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from secateur.budget import kinds, refusal
from secateur.budget.allocate import Allocator, Plan
from secateur.budget.fit import COARSE, Costs, Fit
from secateur.budget.menus import Curves, cost
from secateur.budget.way import Way, free_cost
from secateur.contracts import Term
from secateur.errors import BudgetError
from secateur.terms import feasible, views
from secateur.terms.live import ROUGHLY, project_live
from secateur.types import Level, Limit, Packing, Weight, Weights

if TYPE_CHECKING:
    from torch import Tensor

_PROBE_AT = (0.8,)  # the file is measured once on the way, when most dead units are gone;
_CUTS_AT = (0.3, 0.6, 0.9)  # and oftener where channels take their readers' columns along: what is gone stays gone
_ROUNDS, _HALVINGS = 4, 6
_DRAWS = 8  # of places for the kept weights, where a network is refused and the places count
_USED = 0.9  # of some limit, or what was priced is not what the budget is for
_SETTLED = 0.005  # the fixed part is known when a round moves it by no more than this share of the whole
_ALIVE = 0.9  # share of the kept weights that must be able to matter before a small file counts as room


@dataclass
class Purse:
    """Answers levels for any tightness (`types.Allocate`) and learns what the file really costs.

    Attributes:
        terms: all terms, joint sets whole.
        limits: the limits that have a meter.
        costs_of: projected weights -> what the network that they give really costs, for each limited kind; None =
            nothing is measured.
        fixed: what that is beyond the sites' estimates, as last measured.
        way: what tightness means now.
        left_out: in words, the weights that no term can act on and that are spent whatever is asked; for refusals.
        untouched: weights that no term acts on, left out or not named by the recipe; for refusals.
        companions: what goes with removed channels (`terms.live.project_live`).
    """

    terms: tuple[Term, ...]
    limits: tuple[Limit, ...]
    costs_of: Callable[[Weights], Costs] | None = None
    effective: Callable[[Weights], Mapping[str, Tensor]] | None = None
    fixed: dict[str, float] = field(default_factory=dict)
    probed: int = 0  # how often the net was measured on the way
    way: Way = field(default_factory=Way)
    left_out: str = ""
    curves: Curves = field(default_factory=Curves)
    untouched: tuple[Weight, ...] = ()
    companions: Callable[[Weights], Mapping[str, Tensor]] | None = None
    answer: tuple[Plan, Weights] | None = None  # what `probe` found `as_priced`, and the weights projected to it

    @property
    def moves(self) -> bool:
        """Is there a limit on what training moves, the size of the file?"""
        return any(kinds.meter(x.kind).margin for x in self.limits)

    @property
    def _counts_values(self) -> bool:
        """Is there a limit on what fewer bits lower?"""
        return any(kinds.meter(x.kind).lowered_by == "values" for x in self.limits)

    @property
    def _probes(self) -> tuple[float, ...]:
        if any(t.site.op == "channels" for t in self.terms):
            return _CUTS_AT
        return _PROBE_AT if self.moves else ()

    @property
    def _first(self) -> Limit | None:
        """The limit that the way is measured by."""
        return self.limits[0] if self.limits else None

    def allocator(self) -> Allocator:
        """Today's allocator."""
        return Allocator(self.terms, self.limits, dict(self.fixed), curves=self.curves)

    def levels(
        self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float, strict: bool = False
    ) -> dict[str, Level]:
        """Full levels, joint sets whole.

        Args:
            strict: raise BudgetError when the estimates see no way; else the tightest levels are the answer then, where
                the written file is measured at the end.
        """
        plain = self.way.at(tightness)
        t = self.way.tightness(self.terms, self._first, self.fixed, weights, tightness)
        try:
            found = self.allocator()(weights, importance, t)
        except BudgetError as e:
            if strict or self.costs_of is None:
                raise
            found = self.tightest(e, weights, importance)  # the file of the end will tell, estimates on the way do not
        for term in self.terms if t > plain else ():  # a net that is sparse already is no reason to hurry given levels
            if term.given:
                shape = views.shape(term.site, term.constraint.view, weights)
                found[term.site.name] = term.constraint.at_tightness(shape, term.level, plain)
        return found

    def support_levels(
        self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float
    ) -> dict[str, Level]:
        """Levels of the support parts: the `allocate` of a solver's problem. Probes the file on the way."""
        due = sum(self.way.at(tightness) >= at for at in self._probes)
        if self.probed < due:
            self.probed = due
            self.probe(weights, importance)
        found = self.levels(weights, importance, tightness)
        terms, at = feasible.support_only(self.terms, found)
        return {t.site.name: at[t.site.name] for t in terms}

    def set_out(self, weights: Weights) -> None:
        """The way begins at what these weights hold."""
        self.way.set_out(self.terms, self._first, weights)

    def plan(self, weights: Weights, importance: Mapping[str, Tensor | None]) -> Plan:
        """What the budget buys now."""
        return self.allocator().predict(weights, importance)

    def probe(
        self,
        weights: Weights,
        importance: Mapping[str, Tensor | None],
        rounds: int = _ROUNDS,
        as_priced: bool = False,
    ) -> None:
        """Measure the network that one-shot projection of `weights` would give, and book its fixed part.

        The fixed part depends a little on the levels (units die with their weights), hence a few rounds.

        Args:
            as_priced: a network that is within the limits, and of which the last booking would move little, is the
                `answer`: levels that nobody has priced would follow from that booking. So a quarter of a per cent is
                booked beyond: what lands a hair above a limit would be allocated, projected and priced once more.
        Raises:
            BudgetError: with the size that the tightest levels really give.
        """
        if self.costs_of is None or not self.limits:
            return
        low: dict[str, float] = {}  # bookings that let the real cost miss its limit,
        high: dict[str, float] = {}  # and that kept it
        for n in range(rounds + _HALVINGS):
            try:
                plan = self.plan(weights, importance)
            except BudgetError as e:
                self._face(e, weights, importance)
                return
            near = self._near(plan.levels, weights, importance)
            costs = self.costs_of(near)
            settled, booked = True, dict(self.fixed)
            for kind, asked, expected in plan.totals:
                before = self.fixed.get(kind, 0.0)
                side = high if costs[kind] <= asked else low
                side[kind] = (min if side is high else max)(before, side.get(kind, before))
                beyond = self._beyond_estimates(kind, costs[kind] - (expected - before), near, plan)
                if kind in low and kind in high and not low[kind] < beyond < high[kind]:
                    # One booking leaves a net cut off, which books nothing, which bursts: the answer lies between.
                    near_enough = (1 - COARSE) * asked <= costs[kind] <= asked
                    last = near_enough or n == rounds + _HALVINGS - 1
                    self.fixed[kind] = high[kind] if last else (low[kind] + high[kind]) / 2
                    settled &= near_enough
                else:
                    settled &= abs(beyond - before) <= _SETTLED * costs[kind]
                    self.fixed[kind] = beyond + (_SETTLED / 2 * asked if as_priced else 0.0)
            used = [costs[kind] / asked for kind, asked, _ in plan.totals if asked]
            # A projection that cuts layers off is far below every limit: no picture of what training gives.
            if settled and as_priced and used and _USED <= max(used) <= 1:
                self.fixed, self.answer = booked, (plan, near)
            if settled or (n >= rounds - 1 and not low.keys() & high.keys()):
                return

    def _beyond_estimates(self, kind: str, found: float, near: Weights, plan: Plan) -> float:
        """What a net costs beside the estimates of its sites, as far as that is room to spend.

        Contexts make a file smaller than the estimates, removed channels take their readers' columns along. But levels
        that cut a layer off leave a small network full of dead weights: that is no room.
        """
        removes = any(t.site.op == "channels" for t in self.terms)
        alive = sum(_kept(t, near) for t in self.terms) >= _ALIVE * sum(r.nnz for r in plan.rows)
        return found if found >= 0 or (alive and (kinds.meter(kind).margin or removes)) else 0.0

    def fit(
        self,
        weights: Weights,
        importance: Mapping[str, Tensor | None],
        costs_at: Callable[[dict[str, Level]], Costs] | None = None,
    ) -> dict[str, Level]:
        """Final levels from today's weights: the written network meets the limits, and little of them is left unspent.

        Args:
            costs_at: levels -> what the network that they give costs now; None = the estimates are believed.
        Raises:
            BudgetError: with the smallest size that was reached.
        """
        if costs_at is None or not self.limits:
            return self.levels(weights, importance, 1.0, strict=True)
        return Fit(self, weights, importance, costs_at).levels()

    def check(self, sizes: Mapping[str, float]) -> None:
        """Raise BudgetError when a finished answer misses a metered limit."""
        for limit in self.limits:
            if sizes[limit.kind] > limit.value:
                raise BudgetError(
                    f"budget: {limit.kind} <= {limit.value:g} was missed: {sizes[limit.kind]:g}; raise the budget or "
                    "constrain more",
                    sizes[limit.kind],
                )

    def missed(self, kind: str, smallest: float, site: str | None) -> BudgetError:
        """The refusal when no levels that were tried and written meet that limit."""
        limit = next(x for x in self.limits if x.kind == kind)
        return refusal.missed(limit, smallest, site, self.untouched)

    def expected(self, kind: str, levels: Mapping[str, Level], weights: Weights) -> float:
        """What the sites cost at these levels by the estimates, without the fixed part."""
        held = tuple(replace(t, level=levels[t.site.name], given=True) for t in self.terms)
        return sum(row.costs[kind] for row in Allocator(held, ()).predict(weights).rows)

    def limit(self, kind: str) -> float | None:
        """The limit of that kind, or None."""
        return next((x.value for x in self.limits if x.kind == kind), None)

    def _near(self, levels: Mapping[str, Level], weights: Weights, importance: Mapping[str, Tensor | None]) -> Weights:
        """The weights of the terms as `fit` would have them: supports in rounds, then values inside, once.

        Values are left as they are where no limit counts what they take: a scale a row of 130,000 weights is 50 ms, and
        each of the rounds asked for it (a run of a small net of 1x4 blocks in int8 took 62 s, 10 without).
        """
        terms, at = feasible.support_only(self.terms, levels)
        how = (self.effective, self.companions, ROUGHLY)
        near = {m.param: weights[m.param] for t in self.terms for m in t.site.members}
        near |= project_live(terms, lambda w, h, t: dict(at), weights, importance, 1.0, *how)[1]
        if self._counts_values:
            near |= dict(feasible.project(self.terms, levels, {**weights, **near}))
        return near

    def _face(self, error: BudgetError, weights: Weights, importance: Mapping[str, Tensor | None]) -> None:
        """The estimates refuse a limit: price the tightest network for real, then refuse with that or correct them."""
        limit = None if error.kind is None else self.limit(error.kind)
        if error.kind is None or error.smallest is None or limit is None or error.smallest <= limit:
            raise error
        assert self.costs_of is not None
        booked = self.fixed.get(error.kind, 0.0)
        meter = kinds.meter(error.kind)
        smallest, alive = 0.0, False
        if meter.margin or any(t.site.op == "channels" for t in self.terms):
            tightest = self.tightest(error, weights, importance)
            near = self._near(tightest, weights, importance)
            cost, alive = self.costs_of(near)[error.kind], all(_kept(t, near) for t in self.terms)
            if meter.by_place:
                cost = max(cost, self._elsewhere(tightest, weights, error.kind))
            smallest = kinds.up(error.kind, cost)
        if (meter.on_machine and not alive) or not smallest:
            # Layers that are dead are no way to meet a limit: what is fixed is counted.
            counted = error.smallest - booked + self._beyond(error.kind, weights)
            smallest = max(smallest, kinds.up(error.kind, counted))
        if smallest > limit:
            if meter.margin:  # training moves the entropy of positions and values, and clocks differ
                smallest = kinds.with_margin(error.kind, smallest)
            raise refusal.unreachable(Limit(error.kind, limit), smallest, error.site, self.untouched, self.left_out)
        self._between(*self.most_fixed(error), weights, importance)

    def _elsewhere(self, levels: Mapping[str, Level], weights: Weights, kind: str) -> float:
        """The most that a network costs at these levels among a few whose weights stand in other places.

        Another training keeps other weights, and a packing for vectors of eight takes as many rows as the fullest.
        """
        assert self.costs_of is not None
        names, most = {m.param for t in self.terms for m in t.site.members}, 0.0
        for seed in range(_DRAWS):
            order = torch.Generator().manual_seed(seed)
            moved = {
                k: w.flatten()[torch.randperm(w.numel(), generator=order).to(w.device)].view_as(w)
                for k, w in weights.items()
                if k in names
            }
            drawn = {**weights, **moved}
            most = max(most, self.costs_of({**drawn, **self._near(levels, drawn, {})})[kind])
        return most

    def most_fixed(self, error: BudgetError) -> tuple[str, float]:
        """The kind of a refused limit, and the fixed part beside which just the tightest levels are within it."""
        assert error.kind is not None
        assert error.smallest is not None
        limit = self.limit(error.kind)
        assert limit is not None
        return error.kind, limit - (error.smallest - self.fixed.get(error.kind, 0.0)) - 1e-9 * limit

    def _between(self, kind: str, high: float, weights: Weights, importance: Mapping[str, Tensor | None]) -> None:
        """Book the fixed part beside which the real cost meets the limit, by bisection: at `high` it does, at 0 not.

        What is fixed shrinks with the units that die. Booked as dense it leaves the tightest levels only, booked as in
        the net that these leave it lets the file miss its limit three times over (a MobileNetV2-style net at 1/15).
        """
        limit, low = self.limit(kind), 0.0
        assert self.costs_of is not None
        assert limit is not None
        for _ in range(_HALVINGS if high > low else 0):
            self.fixed[kind] = (low + high) / 2
            try:
                levels = self.levels(weights, importance, 1.0, strict=True)
            except BudgetError:  # by another limit
                break
            cost = self.costs_of(self._near(levels, weights, importance))[kind]
            low, high = (low, self.fixed[kind]) if cost <= limit else (self.fixed[kind], high)
            if (1 - COARSE) * limit <= cost <= limit:
                break
        self.fixed[kind] = high

    def _beyond(self, kind: str, weights: Weights) -> float:
        """What the net costs now beside the weights of the terms."""
        assert self.costs_of is not None
        meter, own = kinds.meter(kind), 0.0
        for t in self.terms:
            matrix = views.matrix(t.site, t.constraint.view, weights)
            own += cost(meter, t.site, (Packing(matrix.numel(), int(matrix.count_nonzero())),))
        return max(float(self.costs_of(weights)[kind]) - own, 0.0)

    def tightest(
        self, error: BudgetError, weights: Weights, importance: Mapping[str, Tensor | None]
    ) -> dict[str, Level]:
        """The levels of the cheapest network that the estimates know, after they refused the limit of `error`."""
        if error.smallest is None or error.kind is None:
            raise error
        tightest = (Limit(error.kind, error.smallest * (1 + 1e-9)),)
        least = Allocator(self.terms, tightest, dict(self.fixed), curves=self.curves)
        return least(weights, importance, 1.0)

    def going_on(self, before: Purse, weights: Weights) -> Purse:
        """This purse on the way that `before` had begun on a larger net with these weights; the same limits."""
        self.fixed, self.probed = dict(before.fixed), before.probed
        self.way = Way(begin=before.way.begin or free_cost(before.terms, self._first, weights))
        return self

    # ---- resume ------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """JSON for an exact resume."""
        return {"fixed": dict(self.fixed), "probed": self.probed, "begin": self.way.begin}

    def load(self, state: Mapping[str, Any]) -> None:
        """Exactly as `state` gave it."""
        self.fixed, self.probed, self.way.begin = dict(state["fixed"]), int(state["probed"]), state["begin"]


def _kept(term: Term, weights: Weights) -> int:
    """Weights that a term's set keeps; of a channel that is still there all."""
    matrix = views.matrix(term.site, term.constraint.view, weights)
    if term.site.op == "channels":
        return int((matrix != 0).any(1).sum()) * matrix.shape[1]
    return int(matrix.count_nonzero())
