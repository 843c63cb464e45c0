"""Weighted k-means on the line, by dynamic programming.

Clusters of an optimal solution are intervals of the sorted values, and the cost of an interval is Monge, so layer m of

    D[m][i] = min_{a <= i} D[m-1][a] + cost(a, i)

has argmins that grow with i and with m. A layer is found by divide and conquer over i, compiled (kernels/kmeans of the
engine): O(n log n), O(m n log n) together (Wang & Song, R Journal 2011; Groenlund et al., arXiv:1701.07204).
Layers are made when first asked for, so all numbers of clusters up to m cost no more than m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.native._native import KMeans

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Line:
    """Values x on the line with weights h, sorted once for any number of solutions.

    Args:
        x: float64 [n].
        h: float64 [n] >= 0, or None for ones. Values of weight 0 do not count (all 0: they all count).
        zero: a further centre stands at 0, free of charge.
        exact_below: up to that many distinct values the answer is exact; above, cuts are sought among some 2,048
            positions (by the same recursion) and then moved by Lloyd's iteration on all values.
    """

    def __init__(self, x: Floats, h: Floats | None, zero: bool, exact_below: int) -> None:
        self._order = np.argsort(x)
        self._x = x[self._order]
        self._h = np.ones(x.size) if h is None else h[self._order]
        self._zero, self._exact_below = zero, exact_below

    def solver(self, kept: Bools | None = None) -> KMeans:
        """`.centres(m)`: at most m optimal centres, ascending, without the free zero; of the `kept` values [n] only."""
        if kept is None:
            return KMeans(self._x, self._h, self._zero, self._exact_below)
        at = kept[self._order]
        x, h = self._x[at], self._h[at]
        if not h.any():
            x, h = self._x, np.zeros_like(self._x)
        return KMeans(x, h, self._zero, self._exact_below)

    def assign(self, centres: Floats) -> Floats:
        """For each x the nearest of `centres` (ascending); halfway: the lower one."""
        ends = np.searchsorted(self._x, (centres[1:] + centres[:-1]) / 2, side="right")
        out = np.empty_like(self._x)
        out[self._order] = np.repeat(centres, np.diff(ends, prepend=0, append=out.size))
        return out
