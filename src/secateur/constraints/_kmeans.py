"""Weighted k-means on the line, by dynamic programming.

Clusters of an optimal solution are intervals of the sorted values, and the cost of an interval is Monge, so layer m of

    D[m][i] = min_{a <= i} D[m-1][a] + cost(a, i)

has argmins that grow with i and with m. A layer is found by divide and conquer over i, compiled (kmeans_layer of the
engine's module): O(n log n), O(m n log n) together (Wang & Song, R Journal 2011; Groenlund et al., arXiv:1701.07204).
Layers are made when first asked for, so all numbers of clusters up to m cost no more than m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.engine import _native

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BINS = 2048  # cut positions tried where there are too many values for the exact answer


class KMeans1D:
    """Optimal centres for any number of clusters up to what is asked, of values x with weights h.

    Args:
        x: float64 [n].
        h: float64 [n] >= 0, or None for ones. Values of weight 0 do not count (all 0: they all count).
        zero: a further centre stands at 0, free of charge.
        exact_below: up to that many distinct values the answer is exact; above, cuts are sought among some 2,048
            positions (by the same recursion) and then moved by Lloyd's iteration on all values.
    """

    def __init__(self, x: Floats, h: Floats | None, zero: bool, exact_below: int) -> None:
        weight = np.ones(x.size) if h is None or not (h > 0).any() else h
        x, weight = x[weight > 0], weight[weight > 0]
        if zero:
            x, weight = x[x != 0], weight[x != 0]
        values, where = np.unique(x, return_inverse=True)
        mass: Floats = np.bincount(where.ravel(), weight, minlength=values.size).astype(np.float64)
        mass = mass / mass.max() if mass.size else mass  # tiny or huge h must not leave float64
        self.exact = values.size <= exact_below
        self._values, self._mass, self._zero = values, mass, zero
        if zero:  # a cluster never reaches across 0: values beyond half its centre on the far side prefer 0 itself
            n = int(np.searchsorted(values, 0.0))
            parts = [(values[:n], mass[:n]), (values[n:][::-1], mass[n:][::-1])]  # both from far to near
        else:
            parts = [(values, mass)]
        self._sides = [_Side(v, w, zero, self.exact) for v, w in parts if v.size]

    def centres(self, m: int) -> Floats:
        """At most m optimal centres, ascending, float64; the free zero is not among them."""
        if not self._sides:
            return np.zeros(0 if self._zero else 1)
        shares = self._shares(m)
        found = np.sort(np.concatenate([s.centres(j) for s, j in zip(self._sides, shares, strict=True)]))
        return found if self.exact else _lloyd(self._values, self._mass, found, self._zero)

    def _shares(self, m: int) -> list[int]:
        if len(self._sides) == 1:
            return [m]
        left, right = self._sides
        costs = [left.cost(j) + right.cost(m - j) for j in range(m + 1)]
        best = int(np.argmin(costs))
        return [best, m - best]


class _Side:
    """The recursion on one run of values; with `zero`, the values after the last cluster go to 0."""

    def __init__(self, x: Floats, w: Floats, zero: bool, exact: bool) -> None:
        n = x.size
        self._x, self._w = x, w
        self._cuts = np.arange(n + 1) if exact else _positions(x)
        middle = float(np.average(x, weights=w))  # differences of sums keep more digits around the mean
        at = self._cuts
        self._s0 = _sums(w)[at]
        self._s1 = _sums(w * (x - middle))[at]
        self._s2 = _sums(w * (x - middle) ** 2)[at]
        rest = _sums((w * x * x)[::-1])[::-1][at]
        self._rest = rest if zero else np.where(at == n, 0.0, np.inf)
        start = np.full(at.size, np.inf)
        start[0] = 0.0
        self._best, self._from = [start], [np.zeros(at.size, np.int64)]

    def cost(self, m: int) -> float:
        """Smallest cost with at most m clusters (infinite for m = 0 without a free zero)."""
        return float((self._layer(m) + self._rest).min())

    def centres(self, m: int) -> Floats:
        """The centres of the best clusters, at most m."""
        i = int(np.argmin(self._layer(m) + self._rest))
        edges = [i]
        for j in range(m, 0, -1):
            i = int(self._from[j][i])
            edges.append(i)
        cuts = np.unique(self._cuts[edges])
        if cuts.size < 2:
            return np.empty(0)
        x, w = self._x[: cuts[-1]], self._w[: cuts[-1]]
        base = np.repeat(x[cuts[:-1]], np.diff(cuts))  # from the first value: one distinct value gives itself
        return np.asarray(x[cuts[:-1]] + np.add.reduceat(w * (x - base), cuts[:-1]) / np.add.reduceat(w, cuts[:-1]))

    def _layer(self, m: int) -> Floats:
        while len(self._best) <= m:
            # The last layer's argmins are a floor below which this layer's cannot lie.
            best, origin = _native.kmeans_layer(self._s0, self._s1, self._s2, self._best[-1], self._from[-1])
            self._best.append(best)
            self._from.append(origin)
        return self._best[m]


def nearest(x: Floats, centres: Floats) -> Ints:
    """Index of the nearest centre (ascending) of each value; halfway: the lower one."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, x, side="left")


def _sums(x: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(x)])


def _positions(x: Floats) -> Ints:
    """Cut positions for the coarse recursion: half evenly by rank, half evenly by value."""
    n = x.size
    by_rank = np.linspace(0, n, _BINS // 2).astype(np.int64)
    size = np.abs(x - x[0])
    by_value = np.searchsorted(size, np.linspace(0, size[-1], _BINS // 2))
    return np.unique(np.concatenate([by_rank, by_value, [0, n]]))


def _lloyd(values: Floats, mass: Floats, centres: Floats, zero: bool, rounds: int = 200) -> Floats:
    """Alternate nearest centre and mean until nothing moves; a centre at 0 stays, for `zero`."""
    s0, s1 = _sums(mass), _sums(mass * values)
    for _ in range(rounds):
        held = np.unique(np.append(centres, 0.0)) if zero else centres
        cuts = np.searchsorted(values, (held[1:] + held[:-1]) / 2, side="right")
        cuts = np.concatenate([[0], cuts, [values.size]])
        w = s0[cuts[1:]] - s0[cuts[:-1]]
        moved = np.where(w > 0, (s1[cuts[1:]] - s1[cuts[:-1]]) / np.where(w > 0, w, 1.0), held)
        moved = np.unique(moved[held != 0] if zero else moved)
        if moved.size == centres.size and np.array_equal(moved, centres):
            break
        centres = moved
    return centres
