"""One budget over all sites, exactly: keep the units with the largest gain per cost (card P2).

Maximise the kept gain sum_i sum_{j kept} g_ij subject to sum_i c_i k_i <= budget. With equal c the greedy choice is
optimal; with different c it is optimal for the linear relaxation and misses at most one unit of the knapsack; what the
last unit leaves over is filled with cheaper ones. Ties: earlier site, then lower flat index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def select(gains: Sequence[Floats], prices: Sequence[float], budget: float, at_least: int = 0) -> list[int]:
    """Units kept per site.

    Args:
        gains: per site float64 [units], >= 0.
        prices: per site cost of one kept unit, >= 0 (0: the site is free of charge and keeps everything).
        budget: what the kept units may cost together; the caller has checked that the floor fits.
        at_least: units every site keeps (all of them, where it has fewer).
    """
    sizes = [g.size for g in gains]
    floor = [min(at_least, n) for n in sizes]
    ratio = np.concatenate([_ratio(g, c, f) for g, c, f in zip(gains, prices, floor, strict=True)] or [np.empty(0)])
    paying = {c for c in prices if c > 0}
    if len(paying) <= 1:
        unpaid = sum(n for n, c in zip(sizes, prices, strict=True) if c == 0)
        n_kept = min(ratio.size, unpaid + (int(budget / paying.pop() + 1e-9) if paying else 0))
        return _count(ratio, sizes, n_kept)
    price = np.repeat(np.array(prices, dtype=np.float64), sizes)
    site = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(-ratio, kind="stable")
    spent = np.cumsum(price[order])
    n_kept = int(np.searchsorted(spent, budget * (1 + 1e-12), side="right"))
    kept = np.bincount(site[order[:n_kept]], minlength=len(sizes))
    left = budget - (float(spent[n_kept - 1]) if n_kept else 0.0)
    return _fill(gains, prices, kept, left)


def _ratio(gain: Floats, price: float, floor: int) -> Floats:
    """Gain per cost; infinite for the units that must stay."""
    ratio = gain / price if price > 0 else np.full(gain.size, np.inf)
    if floor > 0:
        ratio = ratio.copy()
        ratio[_largest(gain, floor)] = np.inf
    return ratio


def _count(ratio: Floats, sizes: Sequence[int], k: int) -> list[int]:
    """How many of the `k` largest lie in each site; equal ones: the earlier site first. O(n), one selection."""
    if k <= 0 or k >= ratio.size:
        return list(sizes) if k > 0 else [0] * len(sizes)
    threshold = np.partition(ratio, ratio.size - k)[ratio.size - k]
    parts = np.split(ratio, np.cumsum(sizes)[:-1])
    counts = [int((p > threshold).sum()) for p in parts]
    left = k - sum(counts)
    for i, p in enumerate(parts):
        extra = min(left, int((p == threshold).sum()))
        counts[i] += extra
        left -= extra
    return counts


def _largest(score: Floats, k: int) -> NDArray[np.int64]:
    """Indices of the `k` largest; equal scores: the lower index. O(n)."""
    if k <= 0:
        return np.empty(0, np.int64)
    if k == 1:
        return np.array([score.argmax()])
    if k >= score.size:
        return np.arange(score.size)
    threshold = np.partition(score, score.size - k)[score.size - k]
    above = np.flatnonzero(score > threshold)
    return np.concatenate([above, np.flatnonzero(score == threshold)[: k - above.size]])


def _fill(gains: Sequence[Floats], prices: Sequence[float], kept: NDArray[np.int64], left: float) -> list[int]:
    """Spend what the first unit that did not fit has left over on cheaper units, best ratio first."""
    counts = [int(k) for k in kept]
    open_sites = {i for i, g in enumerate(gains) if counts[i] < g.size and prices[i] > 0}
    while open_sites:
        fits = [i for i in open_sites if prices[i] <= left * (1 + 1e-12)]
        if not fits:
            break
        following = {i: float(np.partition(gains[i], gains[i].size - 1 - counts[i])[-1 - counts[i]]) for i in fits}
        best = max(fits, key=lambda i: (following[i] / prices[i], -i))
        if following[best] <= 0:
            break
        counts[best] += 1
        left -= prices[best]
        if counts[best] == gains[best].size:
            open_sites.discard(best)
    return counts
