"""Choosing one option per site under additive limits: Lagrange multipliers, then a greedy fill.

For multipliers m >= 0 every site picks argmin distance + m . cost on its own; the smallest m that keeps the limits
is found by bisection (several limits: one after the other, the rest held). This reaches the lower convex hull of
the options; the fill then takes the best single upgrades that still fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.budget.menus import Options

Floats = NDArray[np.float64]
_ROUNDS = 6


def choose(sites: Sequence[Options], budgets: Floats) -> list[int] | None:
    """Choice per site with sum of costs <= budgets [limits], or None; refines the options on its way."""
    choice = _lagrange(sites, budgets)
    if choice is None:
        return None
    for _ in range(_ROUNDS):
        choice = _fill(sites, budgets, choice)
        before = [o.distance.size for o in sites]
        fine = [o.zoom(i) for o, i in zip(sites, choice, strict=True)]
        if before == [o.distance.size for o in sites]:
            break
        again = _lagrange(sites, budgets)
        choice = fine if again is None or _total(sites, again) > _total(sites, fine) else again
    return _fill(sites, budgets, choice)


def cheapest(sites: Sequence[Options]) -> Floats:
    """The smallest cost of each site by each meter, [sites, limits]."""
    return np.array([o.cost.min(axis=0) for o in sites])


def _total(sites: Sequence[Options], choice: Sequence[int]) -> float:
    return float(sum(o.distance[i] for o, i in zip(sites, choice, strict=True)))


def _spent(sites: Sequence[Options], choice: Sequence[int]) -> Floats:
    return np.asarray(sum(o.cost[i] for o, i in zip(sites, choice, strict=True)))


def _pick(sites: Sequence[Options], multipliers: Floats) -> list[int]:
    """Per site the smallest distance + m . cost; equal: the cheaper."""
    picks = []
    for o in sites:
        value = o.distance + o.cost @ multipliers
        best = np.flatnonzero(value == value.min())
        picks.append(int(best[o.cost[best].sum(axis=1).argmin()]))
    return picks


def _lagrange(sites: Sequence[Options], budgets: Floats) -> list[int] | None:
    multipliers = np.zeros(len(budgets))
    for _ in range(2 * len(budgets)):
        choice = _pick(sites, multipliers)
        over = _spent(sites, choice) > budgets
        if not over.any():
            return choice
        l = int(np.argmax(_spent(sites, choice) / budgets))  # noqa: E741
        multipliers[l] = _bisect(sites, budgets, multipliers, l)
    choice = _pick(sites, multipliers)
    if (_spent(sites, choice) <= budgets).all():
        return choice
    # The multipliers may swing between two limits: the options that take the least of both, or of the scarcer one.
    for least in (np.sum, np.max):
        frugal = [int(least(o.cost / budgets, axis=1).argmin()) for o in sites]
        if (_spent(sites, frugal) <= budgets).all():
            return frugal
    return None


def _bisect(sites: Sequence[Options], budgets: Floats, multipliers: Floats, which: int) -> float:
    """The smallest multiplier (to 1e-9 relative) that keeps limit `which`, the others held."""

    def keeps(value: float) -> bool:
        trial = multipliers.copy()
        trial[which] = value
        return bool(_spent(sites, _pick(sites, trial))[which] <= budgets[which])

    high: float = max(_total(sites, [0] * len(sites)), max(float(o.distance.max()) for o in sites), 1e-30) / float(
        budgets[which]
    )
    for _ in range(200):
        if keeps(high):
            break
        high *= 4.0
    low = high
    while low > 1e-300 and keeps(low):
        high, low = low, low / 16.0
    while high > low * (1 + 1e-9):
        middle = float(np.sqrt(high) * np.sqrt(low))
        if not low < middle < high:
            break
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def _fill(sites: Sequence[Options], budgets: Floats, choice: list[int]) -> list[int]:
    """Take the upgrade with the best distance per cost that still fits, until none does."""
    choice = list(choice)
    left = budgets - _spent(sites, choice)
    for _ in range(64 + 8 * len(sites)):
        best: tuple[float, int, int] | None = None
        for s, o in enumerate(sites):
            better = o.distance[choice[s]] - o.distance
            extra = o.cost - o.cost[choice[s]]
            fits = np.flatnonzero((better > 0) & (extra <= left).all(axis=1))
            if fits.size == 0:
                continue
            rate = better[fits] / np.maximum((extra[fits] / budgets).clip(min=0).sum(axis=1), 1e-12)
            i = int(rate.argmax())
            if best is None or rate[i] > best[0]:
                best = (float(rate[i]), s, int(fits[i]))
        if best is None:
            break
        _, s, i = best
        left = left - (sites[s].cost[i] - sites[s].cost[choice[s]])
        choice[s] = i
    return choice
