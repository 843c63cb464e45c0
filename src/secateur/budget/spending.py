"""The budget while the weights move: allocation in front, exact bytes of the written file behind.

The allocator prices tensors by estimates; the file also holds the graph, the biases and whatever dead units left.
`Spending` closes that loop: it writes the compressed network that today's weights would give (project, cut, export,
pack), and books the difference between file and estimate as the fixed part of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from secateur import catalog
from secateur.budget.allocate import Allocator, Plan
from secateur.budget.menus import Curves
from secateur.contracts import Term
from secateur.errors import BudgetError
from secateur.terms import feasible, views
from secateur.terms.live import project_live
from secateur.types import Level, Limit, Packing, Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor

Costs = Mapping[str, float]
METERED = ("nbytes", "nnz", "macs")
_PROBE_AT = 0.8  # the file is measured once on the way, when most dead units are gone
_ROUNDS, _HALVINGS = 4, 6
_FITS = 12
_LOOSER, _UNSPENT = 8, 0.02  # so often other levels are tried while more than this share of the limit is left
_COARSE, _TOP_UPS = 0.05, 12  # a larger share than this is not left unspent before so many single steps were tried
_SETTLED = 0.005  # the fixed part is known when a round moves it by no more than this share of the whole
_ALIVE = 0.9  # share of the kept weights that must be able to matter before a small file counts as room
_SMALLEST = {
    "nbytes": "the smallest file that these constraints give is about {} bytes",
    "nnz": "the smallest network that these constraints give keeps {} weights",
    "macs": "the smallest network that these constraints give takes {} multiply-adds",
}
_MORE = {"nbytes": "(biases too: where: '*.bias') "}
_MARGIN = 0.01  # kept free before the values are trained: their entropy moves by less than that


@dataclass
class Spending:
    """Answers levels for any tightness (`types.Allocate`) and learns what the file really costs.

    Attributes:
        terms: all terms, joint sets whole.
        limits: the limits that have a meter.
        costs_of: projected weights -> what the network that they give really costs, for each limited kind (`nbytes`:
            of the `.sct` file); None = nothing is measured.
        fixed: what that is beyond the sites' estimates, as last measured.
        low, high: the part of the way that tightness 0..1 means now (a solver's leg).
        begin: what the free sites cost under the first limit where the way began (`set_out`); None = what they cost
            dense. It stays when the net is cut on the way, so that the way is the one that was begun.
        left_out: in words, the weights that no term can act on and that are spent whatever is asked; for refusals.
        untouched: weights that no term acts on, left out or not named by the recipe -> how many; for refusals.
    """

    terms: tuple[Term, ...]
    limits: tuple[Limit, ...]
    costs_of: Callable[[Weights], Costs] | None = None
    effective: Callable[[Weights], Mapping[str, Tensor]] | None = None
    fixed: dict[str, float] = field(default_factory=dict)
    probed: bool = False
    low: float = 0.0
    high: float = 1.0
    begin: float | None = None
    left_out: str = ""
    curves: Curves = field(default_factory=Curves)
    untouched: Mapping[str, int] = field(default_factory=dict)

    @property
    def asks_bytes(self) -> bool:
        """Is there a limit on the file's size?"""
        return any(x.kind == "nbytes" for x in self.limits)

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
        plain, t = self.low + (self.high - self.low) * tightness, self._way(weights, tightness)
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
        if self.asks_bytes and not self.probed and self.low + (self.high - self.low) * tightness >= _PROBE_AT:
            self.probed = True
            self.probe(weights, importance)
        found = self.levels(weights, importance, tightness)
        terms, at = feasible.support_only(self.terms, found)
        return {t.site.name: at[t.site.name] for t in terms}

    def set_out(self, weights: Weights) -> None:
        """The way begins at what these weights hold: a ramp from dense would do nothing until it gets there."""
        dense, held = self.free_cost(weights), self.free_cost(weights, held=True)
        self.begin = held if held != dense else None

    def free_cost(self, weights: Weights, held: bool = False) -> float | None:
        """What the sites without a given level cost dense, under the first limit; None without limits.

        Args:
            held: count the nonzeros that are there now, where the site's set may keep any number of weights.
        """
        if not self.limits:
            return None
        meter = catalog.load("budget.meters", self.limits[0].kind)()
        total = 0.0
        for t in self.terms:
            if not t.given:
                matrix = views.matrix(t.site, t.constraint.view, weights)
                n = nnz = matrix.numel()
                if held and _any_number(t, (matrix.shape[0], matrix.shape[1])):
                    nnz = int(matrix.count_nonzero())
                total += meter.cost(t.site, Packing(n, nnz))
        return total

    def _way(self, weights: Weights, tightness: float) -> float:
        """Tightness on the whole way, translated to this net's own dense cost."""
        t = self.low + (self.high - self.low) * tightness
        now = self.free_cost(weights)
        if self.begin is None or now is None or not 0 < t < 1:
            return t
        limit = self.limits[0]
        meter = catalog.load("budget.meters", limit.kind)()
        target = limit.value - self.fixed.get(limit.kind, 0.0)
        for term in self.terms:
            if term.given:
                shape = views.shape(term.site, term.constraint.view, weights)
                n = shape[0] * shape[1]
                packing = Packing(n, n) if term.level is None else term.constraint.packing(shape, term.level)
                target -= meter.cost(term.site, packing)
        if not 0 < target < now:
            return t
        budget = max(self.begin, target) ** (1 - t) * target**t
        return min(max(math.log(now / budget) / math.log(now / target), 1e-6), 1.0)

    def plan(self, weights: Weights, importance: Mapping[str, Tensor | None]) -> Plan:
        """What the budget buys now."""
        return self.allocator().predict(weights, importance)

    def probe(self, weights: Weights, importance: Mapping[str, Tensor | None], rounds: int = _ROUNDS) -> None:
        """Measure the network that one-shot projection of `weights` would give, and book its fixed part.

        The fixed part depends a little on the levels (units die with their weights), hence a few rounds.

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
            settled = True
            for kind, asked, expected in plan.totals:
                before = self.fixed.get(kind, 0.0)
                side = high if costs[kind] <= asked else low
                side[kind] = (min if side is high else max)(before, side.get(kind, before))
                beyond = self._beyond_estimates(kind, costs[kind] - (expected - before), near, plan)
                if kind in low and kind in high and not low[kind] < beyond < high[kind]:
                    # One booking leaves a net cut off, which books nothing, which bursts: the answer lies between.
                    near_enough = (1 - _COARSE) * asked <= costs[kind] <= asked
                    last = near_enough or n == rounds + _HALVINGS - 1
                    self.fixed[kind] = high[kind] if last else (low[kind] + high[kind]) / 2
                    settled &= near_enough
                else:
                    settled &= abs(beyond - before) <= _SETTLED * costs[kind]
                    self.fixed[kind] = beyond
            if settled or (n >= rounds - 1 and not low.keys() & high.keys()):
                return

    def _beyond_estimates(self, kind: str, found: float, near: Weights, plan: Plan) -> float:
        """What a net costs beside the estimates of its sites, as far as that is room to spend.

        Contexts make a file smaller than the estimates, removed channels take their readers' columns along. But levels
        that cut a layer off leave a small network full of dead weights: that is no room.
        """
        removes = any(t.site.op == "channels" for t in self.terms)
        alive = sum(_kept(t, near) for t in self.terms) >= _ALIVE * sum(r.nnz for r in plan.rows)
        return found if found >= 0 or (alive and (kind == "nbytes" or removes)) else 0.0

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
        best: dict[str, Level] | None = None
        nearly: dict[str, Level] | None = None  # within the limits, though not within the margin
        last: dict[str, Level] | None = None
        fits: dict[str, float] = {}  # the fixed part at which the best levels were found
        bursts: dict[str, float] = {}  # and the latest at which a limit was missed
        smallest: dict[str, float] = {}
        costs: Costs = {}
        used, tries, push, site = 0.0, 0, 1.05, None
        for _ in range(_FITS):
            try:
                levels = self.levels(weights, importance, 1.0, strict=True)
            except BudgetError as e:
                if costs_at is None:
                    raise
                site = e.site
                if best is not None or nearly is not None:
                    break
                levels = self.tightest(e, weights, importance)  # what is fixed dies with units: these may fit
                last, costs = levels, costs_at(levels)
                over = {x.kind: costs[x.kind] for x in self.limits if costs[x.kind] > x.value}
                if over:
                    smallest = {k: min(smallest.get(k, math.inf), cost) for k, cost in over.items()}
                    break
                # A net of one weight a layer is seldom the answer: between it and the levels that missed lies a better.
                best, used = levels, max(costs[x.kind] / x.value for x in self.limits)
                kind, most = self._most_fixed(e)
                fits, bursts = {**self.fixed, kind: most}, bursts or {kind: 0.0}
                self.fixed[kind] = (most + bursts.get(kind, 0.0)) / 2
                continue
            if not self.limits or costs_at is None:
                return levels
            if levels == best:
                break
            before, costs, last = costs, costs if levels == last else costs_at(levels), levels
            if costs == before and best is not None:  # what could be had is gone from these weights
                break
            over = {x.kind: costs[x.kind] - _allowed(x) for x in self.limits}
            missed = {k: v for k, v in over.items() if v > 0}
            if missed:
                if all(costs[x.kind] <= x.value for x in self.limits):
                    nearly = levels
                # Bits are coarse steps: a push of a few bytes that moves nothing is followed by larger ones.
                push = 2 * push if all(costs[k] >= smallest.get(k, math.inf) for k in missed) else 1.05
                bursts, smallest = dict(self.fixed), {k: min(smallest.get(k, math.inf), costs[k]) for k in missed}
            else:
                now = max(costs[x.kind] / x.value for x in self.limits)
                looser = sum(self.fixed.values()) < sum(fits.values())  # at the same size: the levels that keep more
                if best is None or now > used or (now == used and looser):
                    best, used = levels, now
                fits = dict(self.fixed)
            tries += best is not None
            if used >= 1 - _UNSPENT or tries > _LOOSER:
                break
            for kind, value in (missed or over).items():
                if fits and bursts:  # sizes may answer more steeply than the estimates: halve the gap
                    self.fixed[kind] = (fits.get(kind, 0.0) + bursts.get(kind, 0.0)) / 2
                else:
                    self.fixed[kind] = self.fixed.get(kind, 0.0) + (push * value if missed else value)
        found = nearly if best is None else best
        if found is None:
            kind = next(iter(smallest))
            raise self._missed(kind, smallest[kind], site)
        if best is not None and costs_at is not None and used < 1 - _COARSE:
            found = self._topped_up(found, used, costs_at, weights)
        return found

    def _topped_up(
        self,
        levels: dict[str, Level],
        used: float,
        costs_at: Callable[[dict[str, Level]], Costs],
        weights: Weights,
    ) -> dict[str, Level]:
        """One unit more here and there, where units are coarse or the last ones cannot matter: what fits is taken."""
        open_terms, tries = [t for t in self.terms if not t.given], 0
        while open_terms and tries < _TOP_UPS and used < 1 - _COARSE:
            for term in list(open_terms):
                more = _one_more(term, levels[term.site.name], weights)
                trial = {**levels, term.site.name: more}
                tries += more is not None
                costs = {} if more is None else costs_at(trial)
                now = max((costs[x.kind] / x.value for x in self.limits), default=0.0) if costs else 0.0
                if costs and now > used and all(costs[x.kind] <= _allowed(x) for x in self.limits):
                    levels, used = trial, now
                else:
                    open_terms.remove(term)
                if tries >= _TOP_UPS or used >= 1 - _COARSE:
                    break
        return levels

    def check(self, sizes: Mapping[str, float]) -> None:
        """Raise BudgetError when a finished answer misses a metered limit."""
        for limit in self.limits:
            if sizes[limit.kind] > limit.value:
                raise BudgetError(
                    f"budget: {limit.kind} <= {limit.value:g} was missed: {sizes[limit.kind]:g}; raise the budget or "
                    "constrain more",
                    sizes[limit.kind],
                )

    def _missed(self, kind: str, smallest: float, site: str | None) -> BudgetError:
        stays = f"the file stays at {smallest:g} bytes" if kind == "nbytes" else f"the network stays at {smallest:g}"
        return BudgetError(
            f"budget: {kind} <= {self.limit(kind):g} cannot be met: {stays} however far the levels are lowered"
            f"{self._holder(kind, smallest, site)}; raise the budget, constrain more layers or give stronger "
            "constraints",
            smallest,
            site,
            kind,
        )

    def _holder(self, kind: str, smallest: float, site: str | None) -> str:
        """What holds the largest part: weights that no set acts on, where they are more than half; else that site."""
        each = {"nbytes": 4, "nnz": 1}.get(kind, 0)
        dense = each * sum(self.untouched.values())
        if dense > smallest / 2:
            names = sorted(self.untouched, key=lambda n: -self.untouched[n])
            shown = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            return f", {dense:,}{' B' if kind == 'nbytes' else ''} of it in weights that no set acts on ({shown})"
        return "" if site is None else f", and {site} holds the largest part"

    def expected_nbytes(self, levels: Mapping[str, Level], weights: Weights) -> float:
        """What the sites cost at these levels by the estimates, without the fixed part."""
        held = tuple(replace(t, level=levels[t.site.name], given=True) for t in self.terms)
        plan = Allocator(held, (Limit("nbytes", math.inf),)).predict(weights)
        return plan.totals[0][2]

    def limit(self, kind: str) -> float | None:
        """The limit of that kind, or None."""
        return next((x.value for x in self.limits if x.kind == kind), None)

    def _near(self, levels: Mapping[str, Level], weights: Weights, importance: Mapping[str, Tensor | None]) -> Weights:
        return project_live(self.terms, lambda w, h, t: dict(levels), weights, importance, 1.0, self.effective)[1]

    def _face(self, error: BudgetError, weights: Weights, importance: Mapping[str, Tensor | None]) -> None:
        """The estimates refuse a limit: price the tightest network for real, then refuse with that or correct them."""
        limit = None if error.kind is None else self.limit(error.kind)
        if error.kind is None or error.smallest is None or limit is None or error.smallest <= limit:
            raise error
        assert self.costs_of is not None
        booked = self.fixed.get(error.kind, 0.0)
        if error.kind == "nbytes" or any(t.site.op == "channels" for t in self.terms):
            near = self._near(self.tightest(error, weights, importance), weights, importance)
            smallest = math.ceil(self.costs_of(near)[error.kind])
        else:  # a net of one weight a layer is mostly dead, which is no way to meet a limit: what is fixed is counted
            smallest = math.ceil(error.smallest - booked + self._beyond(error.kind, weights))
        if smallest > limit:
            if error.kind == "nbytes":  # training moves the entropy of positions and values
                smallest = math.ceil(smallest * (1 + 2 * _MARGIN)) + 4
            raise BudgetError(
                f"budget: {error.kind} <= {limit:g} cannot be met; {_SMALLEST[error.kind].format(smallest)}"
                f"{self._holder(error.kind, smallest, error.site)}; raise the budget, constrain more layers "
                f"{_MORE.get(error.kind, '')}or give stronger constraints"
                f"{f'; {self.left_out}' if self.left_out and error.kind != 'nbytes' else ''}",
                smallest,
                error.site,
                error.kind,
            )
        self._between(*self._most_fixed(error), weights, importance)

    def _most_fixed(self, error: BudgetError) -> tuple[str, float]:
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
            if (1 - _COARSE) * limit <= cost <= limit:
                break
        self.fixed[kind] = high

    def _beyond(self, kind: str, weights: Weights) -> float:
        """What the net costs now beside the weights of the terms."""
        assert self.costs_of is not None
        meter, own = catalog.load("budget.meters", kind)(), 0.0
        for t in self.terms:
            matrix = views.matrix(t.site, t.constraint.view, weights)
            own += meter.cost(t.site, Packing(matrix.numel(), int(matrix.count_nonzero())))
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

    def going_on(self, before: Spending, weights: Weights) -> Spending:
        """This purse on the way that `before` had begun on a larger net with these weights; the same limits."""
        self.fixed, self.probed = dict(before.fixed), before.probed
        self.begin = before.begin or before.free_cost(weights)
        return self

    # ---- resume ------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """JSON for an exact resume."""
        return {"fixed": dict(self.fixed), "probed": self.probed, "begin": self.begin}

    def load(self, state: Mapping[str, Any]) -> None:
        """Exactly as `state` gave it."""
        self.fixed, self.probed, self.begin = dict(state["fixed"]), bool(state["probed"]), state["begin"]


def _any_number(term: Term, shape: tuple[int, int]) -> bool:
    """Does the support part of the term's set offer every count of kept weights?"""
    supports = [part for part, _ in term.constraint.split(None) if part.stage == Stage.SUPPORT]
    return [part.levels(shape) for part in supports] == [range(shape[0] * shape[1] + 1)]


def _one_more(term: Term, level: Level, weights: Weights) -> Level:
    """The next level of the (first) support part, None where there is none."""
    parts = term.constraint.split(level)
    at = next((i for i, (part, _) in enumerate(parts) if part.stage == Stage.SUPPORT), None)
    where = None if at is None else parts[at][1]
    if at is None or not isinstance(where, int):
        return None
    menu = parts[at][0].levels(views.shape(term.site, term.constraint.view, weights))
    more = next((x for x in menu if isinstance(x, int) and x > where), None)
    return (*level[:at], more, *level[at + 1 :]) if isinstance(level, tuple) and more is not None else more


def _kept(term: Term, weights: Weights) -> int:
    """Weights that a term's set keeps; of a channel that is still there all."""
    matrix = views.matrix(term.site, term.constraint.view, weights)
    if term.site.op == "channels":
        return int((matrix != 0).any(1).sum()) * matrix.shape[1]
    return int(matrix.count_nonzero())


def _allowed(limit: Limit) -> float:
    return limit.value * (1 - _MARGIN) if limit.kind == "nbytes" else limit.value


def metered(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits that a meter can price (accuracy_drop is judged, not priced)."""
    return tuple(x for x in limits if x.kind in METERED)
