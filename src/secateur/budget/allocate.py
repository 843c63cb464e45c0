"""Spending the budget: which level each site gets.

    minimise  sum_i distance_i(level_i)   subject to   fixed + sum_i cost_i(level_i) <= limit, for every limit

Two paths. When every free site keeps its best units at one price per unit and there is one limit (top-k or rows under
`nnz` or `macs`), one global selection of the largest h w^2 / cost answers exactly (up to the one item of a knapsack
where prices differ). Otherwise: a Lagrange multiplier on sampled menus, refined to single units around the choice,
then a greedy fill with what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from secateur.budget import kinds, one_pool, overlap, pareto, split
from secateur.budget.menus import Curves, cost, matrices, options, packed, priced, scale_of
from secateur.contracts import Meter, Term
from secateur.curves import Curve, Joint, Product, Tail, thinned
from secateur.errors import BudgetError, UsageError
from secateur.terms import views
from secateur.types import Level, Limit, Packing, Weights

if TYPE_CHECKING:
    from torch import Tensor

    _Matrices = Mapping[str, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Row:
    """What one site gets: level, kept weights, bits per kept value, hard maximum in bytes, distance.

    `costs` is what every meter expects of it, by kind.
    """

    name: str
    shape: tuple[int, int]
    level: Level
    nnz: int
    bits: float
    costs: Mapping[str, float]
    max_nbytes: int
    distance: float
    relative_distance: float


@dataclass(frozen=True)
class Plan:
    """Levels for all sites, one row a site, and per limit what was asked and what is expected."""

    levels: dict[str, Level]
    rows: tuple[Row, ...]
    totals: tuple[tuple[str, float, float], ...]  # (kind, asked, expected), fixed part included

    @property
    def max_nbytes(self) -> int:
        """Hard maximum of the sites' bytes together, without the fixed part."""
        return sum(r.max_nbytes for r in self.rows)


@dataclass(frozen=True)
class Allocator:
    """Levels for any tightness from today's weights; implements `types.Allocate`.

    Attributes:
        terms: all constrained sites; terms with `given` keep their level, the others share the budget.
        limits: hard limits of kinds that have a meter (`budget.kinds`).
        fixed: per kind, the cost that no level changes (graph, header, unconstrained tensors).
        at_least: every free site keeps that many units (weights, rows, n of N:M), so that no layer is cut off.
        relative: measure each site's distance relative to its sum h w^2 instead of plainly.
        logarithmic: count -log of the share of h w^2 that a site keeps, times its h w^2: small losses as they are.
        curves: memory of the sites' curves; shared by allocators that are asked about the same weights.
    """

    terms: tuple[Term, ...]
    limits: tuple[Limit, ...]
    fixed: Mapping[str, float] = field(default_factory=dict)
    at_least: int = 1
    relative: bool = False
    logarithmic: bool = False
    curves: Curves = field(default_factory=Curves, compare=False)

    def __post_init__(self) -> None:
        known = kinds.meters()
        for limit in self.limits:
            if limit.kind not in known:
                raise UsageError(f"budget: no meter for {limit.kind!r}; levels can be found for {', '.join(known)}")
            if not limit.value > 0:
                raise UsageError(f"budget: {limit.kind} is {limit.value}; a positive value is needed")
        free = [t.site.name for t in self.terms if not t.given]
        if free and not self.limits:
            raise UsageError(
                f"{free[0]}: neither a level nor a budget is given; add `level:` to its rule or a limit to `budget:` "
                f"({', '.join(known)})"
            )

    def __call__(
        self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float = 1.0
    ) -> dict[str, Level]:
        """The level of every site.

        Args:
            weights: parameter name -> tensor; not changed.
            importance: site name -> h in the matrix's or the parameter's shape, or None; absent = None.
            tightness: 0 = dense, 1 = the target. Between, the free sites' share of each limit is dense^(1-t) * target^t
                and given levels go their constraint's way (`at_tightness`).
        Raises:
            BudgetError: a limit cannot be met (`smallest` reachable value, `site` in the way).
        """
        return self._levels(weights, importance, tightness)

    def predict(self, weights: Weights, importance: Mapping[str, Tensor | None] | None = None) -> Plan:
        """What the budget buys at tightness 1, for `secateur plan`."""
        importance = importance or {}
        levels = self._levels(weights, importance, 1.0)
        here = self.at(levels, weights)
        matrices_of = {t.site.name: matrices(t, weights, importance) for t in self.terms}
        meters, rows = kinds.meters(), []
        for t in here.terms:
            matrix, h = matrices_of[t.site.name]
            shape, level = _shape(matrix), levels[t.site.name]
            tensors = packed(t.constraint, shape, level)
            costs = {kind: cost(m, t.site, tensors) for kind, m in meters.items()}
            curve = self.curves(t, matrix, h)
            d = 0.0 if level is None else _estimate(curve)(level)
            nnz, bits = sum(p.nnz for p in tensors), max(p.bits for p in tensors)
            most = sum(p.max_nbytes for p in tensors)
            rows.append(Row(t.site.name, shape, level, nnz, bits, costs, most, d, d * self.curves.scale(t, matrix, h)))
        totals = []
        for limit in self.limits:
            expected = sum(r.costs[limit.kind] for r in rows)
            totals.append((limit.kind, limit.value, self.fixed.get(limit.kind, 0.0) + expected))
        return Plan(levels, tuple(rows), tuple(totals))

    def sensitivity(
        self, weights: Weights, importance: Mapping[str, Tensor | None] | None = None, n_levels: int = 10
    ) -> dict[str, list[tuple[Level, tuple[Packing, ...], float]]]:
        """One-shot table: per site some levels of its menu, their packings and distance / sum h w^2 (0..1)."""
        table: dict[str, list[tuple[Level, tuple[Packing, ...], float]]] = {}
        for t in self.terms:
            matrix, h = matrices(t, weights, importance or {})
            shape, scale = _shape(matrix), scale_of(matrix, h)
            curve, menu = _estimate(t.constraint.distance(matrix, h)), t.constraint.levels(shape)
            if isinstance(menu, Product):
                first, *others = menu.menus
                few = [thinned(first, max(n_levels // 2, 2)), *(thinned(m, 4) for m in others)]
                chosen: Sequence[Level] = list(Product(*few))
            else:
                chosen = thinned(menu, n_levels)
            table[t.site.name] = [(lv, packed(t.constraint, shape, lv), scale * curve(lv)) for lv in chosen]
        return table

    def _levels(self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float) -> dict[str, Level]:
        if tightness <= 0.0:
            return {t.site.name: None for t in self.terms}
        levels: dict[str, Level] = {}
        for t in self.terms:
            shape = views.shape(t.site, t.constraint.view, weights)
            levels[t.site.name] = t.constraint.at_tightness(shape, t.level, tightness) if t.given else None
        if self.limits:
            begin = {t.site.name: t.level if t.given else None for t in self.terms}
            matrices_of = {t.site.name: matrices(t, weights, importance) for t in self.terms}
            budgets = self.at(begin, weights)._free_budgets(matrices_of, tightness)
            if overlap.by_machine(self.terms) and any(m.on_machine for m in self._meters()):
                found = split.levels(self, weights, importance, budgets)
                levels |= {t.site.name: found[t.site.name] for t in self.terms if not t.given}
            elif (budgets < 0).any():
                self.refuse(matrices_of, int(np.argmax(budgets < 0)), budgets)
            else:
                levels |= self.chosen(matrices_of, budgets)
        return levels

    def chosen(self, matrices_of: _Matrices, budgets: NDArray[np.float64]) -> dict[str, Level]:
        """Levels of the free sites."""
        free = [t for t in self.terms if not t.given]
        pooled = self._pooled(free, matrices_of, budgets)
        return self._menus(free, matrices_of, budgets) if pooled is None else pooled

    def at(self, levels: Mapping[str, Level], weights: Weights) -> Allocator:
        """This one with a machine's prices as they are at these levels."""
        if not overlap.by_machine(self.terms):
            return self
        shapes = {t.site.name: views.shape(t.site, t.constraint.view, weights) for t in self.terms}
        return replace(self, terms=overlap.today(self.terms, levels, shapes))

    def asked(self, terms: tuple[Term, ...], limits: tuple[Limit, ...]) -> Allocator:
        """The same of these terms and limits, whose losses count by the share of a layer that is kept."""
        return replace(self, terms=terms, limits=limits, logarithmic=True)

    def spent(self, levels: Mapping[str, Level], weights: Weights) -> NDArray[np.float64]:
        """What the free sites cost at these levels, by each limit."""
        total, meters = np.zeros(len(self.limits)), self._meters()
        for t in self.terms:
            if not t.given:
                total += priced(t, views.shape(t.site, t.constraint.view, weights), levels[t.site.name], meters)
        return total

    def tightest(self, weights: Weights, importance: Mapping[str, Tensor | None]) -> dict[str, Level]:
        """The cheapest level of every free site by the first limit that a machine decides."""
        meters, levels = self._meters(), dict[str, Level]()
        which = next((i for i, m in enumerate(meters) if m.on_machine), 0)
        for t in self.terms:
            if not t.given:
                found = options(t, *matrices(t, weights, importance), meters, self.at_least, False, self.curves)
                levels[t.site.name] = found.level(int(found.cost[:, which].argmin()))
        return levels

    def _free_budgets(self, matrices_of: _Matrices, tightness: float) -> NDArray[np.float64]:
        """What the free sites may cost together: dense^(1-t) * target^t, target = limit - fixed - given sites.

        Below 0 where there is less than nothing.
        """
        meters = self._meters()
        target = np.array([limit.value - self.fixed.get(limit.kind, 0.0) for limit in self.limits])
        dense = np.zeros(len(self.limits))
        for t in self.terms:
            shape = _shape(matrices_of[t.site.name][0])
            if t.given:
                target -= priced(t, shape, t.level, meters)
            else:
                dense += priced(t, shape, None, meters)
        if (target < 0).any():
            return target
        return np.where(dense > target, dense ** (1.0 - tightness) * target**tightness, target)

    def _pooled(
        self, free: list[Term], matrices_of: _Matrices, budgets: NDArray[np.float64]
    ) -> dict[str, Level] | None:
        """The exact path, or None where it does not apply."""
        if len(self.limits) != 1:
            return None
        gains, prices, base = [], [], 0.0
        for t in free:
            matrix, h = matrices_of[t.site.name]
            shape, curve = _shape(matrix), self.curves(t, matrix, h)
            price = self._unit_price(t, shape, curve)
            if price is None or not isinstance(curve, Tail):
                return None
            gains.append(curve.gains * (scale_of(matrix, h) if self.relative else 1.0))
            prices.append(price)
            base += priced(t, shape, 0, self._meters())[0]
        floor = base + sum(min(self.at_least, g.size) * c for g, c in zip(gains, prices, strict=True))
        if floor > budgets[0] * (1 + 1e-12):
            self.refuse(matrices_of, 0, budgets)
        kept = one_pool.select(gains, prices, float(budgets[0]) - base, self.at_least)
        return {t.site.name: k for t, k in zip(free, kept, strict=True)}

    def _unit_price(self, t: Term, shape: tuple[int, int], curve: Curve) -> float | None:
        """Cost of one kept unit when every unit costs the same, else None."""
        if not isinstance(curve, Tail):
            return None
        n, meters = curve.gains.size, self._meters()
        if t.constraint.levels(shape) != range(n + 1):
            return None
        at = {k: priced(t, shape, k, meters)[0] for k in (0, 1, n // 3, n)}
        step = (at[n] - at[0]) / n
        return step if all(abs(c - at[0] - k * step) <= 1e-9 * max(at[n], 1.0) for k, c in at.items()) else None

    def _menus(self, free: list[Term], matrices_of: _Matrices, budgets: NDArray[np.float64]) -> dict[str, Level]:
        """The general path."""
        if not free:
            return {}
        meters = self._meters()
        sites = []
        for t in free:
            matrix, h = matrices_of[t.site.name]
            how = self.at_least, self.relative, self.curves, self.logarithmic
            sites.append(options(t, matrix, h, meters, *how))
        choice = pareto.choose(sites, np.maximum(budgets, 1e-9) * (1 + 1e-12))  # a limit that is met exactly is met
        if choice is None:
            short = np.flatnonzero(pareto.cheapest(sites).sum(axis=0) > budgets)
            self.refuse(matrices_of, int(short[0]) if short.size else 0, budgets, joint=short.size == 0)
        return {t.site.name: o.level(i) for t, o, i in zip(free, sites, choice, strict=True)}

    def refuse(self, matrices_of: _Matrices, which: int, budgets: NDArray[np.float64], joint: bool = False) -> NoReturn:
        """Raise BudgetError with the smallest reachable value and the site that costs most there."""
        limit, meters = self.limits[which], self._meters()
        least: dict[str, float] = {}
        for t in self.terms:
            matrix, h = matrices_of[t.site.name]
            if t.given:
                least[t.site.name] = priced(t, _shape(matrix), t.level, meters)[which]
            else:
                sampled = options(t, matrix, h, meters, self.at_least, False, self.curves)
                least[t.site.name] = float(pareto.cheapest([sampled])[0, which])
        fixed = self.fixed.get(limit.kind, 0.0)
        smallest = fixed + sum(least.values())
        up = partial(kinds.up, limit.kind)
        site = max(least, key=lambda name: least[name])
        if joint:
            wider = self._together(matrices_of, budgets)
            raise BudgetError(
                f"budget: {_listed(self.limits)} cannot be met together (each alone can); "
                f"{f'{_listed(wider)} can' if wider else 'raise one of them'}",
                None,
                site,
            )
        raise BudgetError(
            f"budget: {limit.kind} <= {limit.value:g} cannot be met; the smallest reachable is {up(smallest)} "
            f"({up(fixed)} of it fixed), and {site} holds the largest part, {up(least[site])}; "
            f"raise the budget, give {site} a stronger constraint or exclude less",
            smallest,
            site,
            limit.kind,
        )

    def _together(self, matrices_of: _Matrices, budgets: NDArray[np.float64]) -> tuple[Limit, ...]:
        """The same limits, wider by one factor (to 5 %), that can be met together; none when not by any factor."""
        meters = self._meters()
        sites = [
            options(t, *matrices_of[t.site.name], meters, self.at_least, self.relative, self.curves)
            for t in self.terms
            if not t.given
        ]
        scale = 1.0
        while scale < 1e4:
            scale *= 1.05
            if pareto.choose(sites, np.maximum(budgets * scale, 1e-9)) is not None:
                return tuple(
                    Limit(x.kind, float(kinds.up(x.kind, x.value + b * (scale - 1))))
                    for x, b in zip(self.limits, budgets, strict=True)
                )
        return ()

    def _meters(self) -> tuple[Meter, ...]:
        return tuple(kinds.meter(limit.kind) for limit in self.limits)


def _listed(limits: Sequence[Limit]) -> str:
    return ", ".join(f"{x.kind} <= {x.value:g}" for x in limits)


def _shape(matrix: Tensor) -> tuple[int, int]:
    return int(matrix.shape[0]), int(matrix.shape[1])


def _estimate(curve: Curve) -> Curve:
    return curve.estimate if isinstance(curve, Joint) else curve
