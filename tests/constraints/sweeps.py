"""Oracles of uniform grids in NumPy: the best scale, exactly, and the codes and the scale of a member.

minimise over alpha > 0:  E(alpha) = sum_j h_j min_q (a_j - alpha q)^2,  q in {0 or 1, .., top},  a_j >= 0

For fixed codes q the best scale is S1 / S2 and the error sum h a^2 - S1^2 / S2, with S1 = sum h a q, S2 = sum h q^2.
Codes change only at alpha = a_j / (t - 1/2). Two ways to the same answer:
- `_sweep` passes all change points in order, keeping S1 and S2: O(n top log(n top)) (card P15);
- `_bounded` for large n: intervals of alpha with a lower bound from prefix sums of the sorted values (O(top log n) an
  interval); what cannot beat the incumbent is dropped, the rest is split until its codes are fixed.
Both first cut the range of alpha: too small clips more than the incumbent's error, too large loses more near zero.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
_SWEEP_POINTS = 200_000  # above that many change points the bounded search is faster
_SMALL = 4096  # up to that many change points looking for the range costs more than it saves
_CHUNK = 2_000_000  # table entries per pass of the bounded search


def best_scale(a: Floats, h: Floats, top: int, zero: bool) -> float:
    """The optimal alpha; 0.0 when every a (of positive h) is 0.

    Exact up to float64 rounding (the bounded search: up to 1e-10 of the error).

    Args:
        a: float64 [n] magnitudes. h: float64 [n] >= 0.
        top: largest code, >= 1. zero: the code 0 may be used.
    """
    counts = (h > 0) & (a > 0) if zero else h > 0
    a, h = a[counts], h[counts]
    if a.size == 0 or not a.any():
        return 0.0
    unit = float(a.max())
    order = np.argsort(a, kind="stable")
    a, h, first = a[order] / unit, h[order] / h.max(), 1 if zero else 2
    if a.size * top <= _SMALL:
        return unit * _sweep(a, h, np.full(a.size, float(first)), np.full(a.size, float(top)))
    sums = _Sums(a, h, top, zero)
    low, high = sums.range()
    t_low = np.clip(np.ceil(sums.a / high + 0.5), first, top + 1)
    t_high = np.clip(np.floor(sums.a / low + 0.5), first - 1, top)
    n_points = np.maximum(t_high - t_low + 1, 0).sum()
    return unit * (_sweep(a, h, t_low, t_high) if n_points <= _SWEEP_POINTS else _bounded(sums, low, high))


class _Sums:
    """Prefix sums of the sorted values; what a scale or a range of scales costs."""

    def __init__(self, a: Floats, h: Floats, top: int, zero: bool) -> None:
        self.a, self.h, self.top, self.zero = a, h, top, zero
        self.p0, self.p1, self.p2 = (np.concatenate([[0.0], np.cumsum(x)]) for x in (h, h * a, h * a * a))
        self.codes = np.arange(0 if zero else 1, top + 1, dtype=np.float64)
        self.total = float(self.p2[-1])
        self.alpha, self.error = self.fit(np.minimum(np.geomspace(0.02, 1.02 * top, 48) / top, 1.0))
        for _ in range(8):  # Lloyd from the best start: a good incumbent makes everything after it short
            self.improve(np.array([self.alpha]))

    def improve(self, alphas: Floats) -> None:
        """Take the best fit from codes at `alphas` when it beats the incumbent."""
        alpha, error = self.fit(alphas)
        if error < self.error:
            self.alpha, self.error = alpha, error

    def fit(self, alphas: Floats) -> tuple[float, float]:
        """The best (refitted alpha, its error) over the codes that each of `alphas` gives."""
        edges = self._edges((self.codes[1:] - 0.5) * alphas[:, None])
        s1 = (np.diff(self.p1[edges], axis=1) * self.codes).sum(axis=1)
        s2 = (np.diff(self.p0[edges], axis=1) * self.codes**2).sum(axis=1)
        gain = s1 * s1 / np.where(s2 > 0, s2, 1.0)
        i = int(gain.argmax())
        return (float(s1[i] / s2[i]) if s2[i] > 0 else 0.0), max(self.total - float(gain[i]), 0.0)

    def range(self) -> tuple[float, float]:
        """An interval of scales outside which no scale beats the incumbent."""
        limit = self.error * (1 + 1e-9) + 1e-14 * self.total

        def clipped(alpha: float) -> bool:  # what lies above top * alpha costs too much
            x = self.top * alpha
            p = int(np.searchsorted(self.a, x))
            rest = self.h[p:] * (self.a[p:] - x) ** 2
            return float(rest.sum()) > limit

        def lost(alpha: float) -> bool:  # what rounds to 0 (or up to 1 * alpha) costs too much
            p = int(np.searchsorted(self.a, alpha / 2 if self.zero else alpha))
            near = self.a[:p] if self.zero else alpha - self.a[:p]
            return float((self.h[:p] * near**2).sum()) > limit

        low, high = self.alpha, self.alpha
        below, above = 0.0, 1.0  # the best scale is a mean of a/q, so never above max a
        for _ in range(30):
            middle = (below + low) / 2
            below, low = (middle, low) if clipped(middle) else (below, middle)
            middle = (above + high) / 2
            above, high = (middle, high) if lost(middle) else (above, middle)
        return max(below, 1e-12), min(above * (1 + 1e-12), 1.0)

    def bound(self, low: Floats, high: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Lower bound of E on each [low, high], and whether no code changes inside (then it is the minimum).

        Values that keep one code: the minimum of their common parabola. Values that change between t - 1 and t:
        at least the smaller of what they miss t by at `low` and t - 1 by at `high`.
        """
        t = self.codes[1:]
        at_low, at_high = self._edges((t - 0.5) * low[:, None]), self._edges((t - 0.5) * high[:, None])
        start, stop = at_high[:, :-1], at_low[:, 1:]
        f0 = (self.p2[stop] - self.p2[start]).sum(axis=1)
        f1 = ((self.p1[stop] - self.p1[start]) * self.codes).sum(axis=1)
        f2 = ((self.p0[stop] - self.p0[start]) * self.codes**2).sum(axis=1)
        alpha = np.clip(f1 / np.where(f2 > 0, f2, 1.0), low, high)
        missed = np.minimum(
            t * low[:, None] - (t - 0.5) * high[:, None], (t - 0.5) * low[:, None] - (t - 1) * high[:, None]
        )
        moving = self.p0[at_high[:, 1:-1]] - self.p0[at_low[:, 1:-1]]
        value = f0 - 2 * alpha * f1 + alpha**2 * f2 + (moving * np.maximum(missed, 0.0) ** 2).sum(axis=1)
        return value, (at_high == at_low).all(axis=1)

    def _edges(self, thresholds: Floats) -> NDArray[np.int64]:
        """Segment borders [k, codes + 1] in the sorted values: 0, the thresholds' positions, n."""
        inner = np.searchsorted(self.a, thresholds)
        k = len(thresholds)
        return np.hstack([np.zeros((k, 1), np.int64), inner, np.full((k, 1), self.a.size)])


def _sweep(a: Floats, h: Floats, t_low: Floats, t_high: Floats) -> float:
    """All change points of the range, from the largest scale down; codes start at t_low - 1."""
    count = np.maximum(t_high - t_low + 1, 0).astype(np.int64)
    j = np.repeat(np.arange(a.size), count)
    t = t_low[j] + (np.arange(j.size) - np.repeat(np.cumsum(count) - count, count))
    order = np.argsort(-(a[j] / (t - 0.5)), kind="stable")
    j, t = j[order], t[order]
    q = t_low - 1
    s1 = np.concatenate([[(h * a * q).sum()], h[j] * a[j]]).cumsum()
    s2 = np.concatenate([[(h * q * q).sum()], h[j] * (2 * t - 1)]).cumsum()
    gain = s1 * s1 / np.where(s2 > 0, s2, 1.0)
    i = int(gain.argmax())
    return float(s1[i] / s2[i])


def _bounded(sums: _Sums, low: float, high: float) -> float:
    """Drop the intervals that cannot beat the incumbent; split the others."""
    # Beyond this ratio two change regions (t and t + 1) would overlap and the bound would not hold.
    ratio = 1.0 + 0.5 / sums.top
    edges = np.geomspace(low, high, max(int(np.ceil(np.log(high / low) / np.log(ratio))), 1) + 1)
    lows, highs = edges[:-1], edges[1:]
    per_pass = max(_CHUNK // sums.top, 1)
    for _ in range(40):
        kept: list[tuple[Floats, Floats]] = []
        for at in range(0, lows.size, per_pass):
            lo, hi = lows[at : at + per_pass], highs[at : at + per_pass]
            sums.improve((lo + hi) / 2)
            value, fixed = sums.bound(lo, hi)
            hopeful = (value < sums.error * (1 - 1e-10) - 1e-15 * sums.total) & ~fixed
            kept.append((lo[hopeful], hi[hopeful]))
        lows, highs = (np.concatenate(x) for x in zip(*kept, strict=True))
        if lows.size == 0:
            break
        parts = np.linspace(lows, highs, 5)
        lows, highs = parts[:-1].ravel(), parts[1:].ravel()
    return sums.alpha


def grid_of(group: Tensor, top: int, nonzero: bool) -> tuple[Tensor, float] | None:
    """Whole numbers q, |q| <= top, and a scale of the dtype with scale * q == group exactly; None if there are none."""
    size = group.detach().abs()
    distinct, where = torch.unique(size, return_inverse=True)
    u = distinct[distinct > 0].double().cpu().numpy()
    if u.size == 0:
        return torch.zeros(group.shape, dtype=torch.int16, device=group.device), 1.0
    if u.size > top or (nonzero and u.size < distinct.numel()):
        return None
    kind = torch.finfo(group.dtype)
    slack = 0.5 * kind.eps * u + 0.5 * kind.smallest_normal * kind.eps  # half a unit in the last place
    t = np.arange(1, top + 1)[:, None]  # the code of the smallest magnitude
    q = np.rint(u / u[0] * t)
    fits = (np.abs(u - u[0] / t * q) <= 3 * slack + 3 * slack[0] * q / t).all(axis=1) & (q[:, -1] <= top)
    for row in q[fits]:
        middle = (((u - slack) / row).max() + ((u + slack) / row).min()) / 2
        near = middle + math.ldexp(kind.eps, math.frexp(middle)[1] - 1) * np.arange(-3, 4)  # the numbers around it
        scales = torch.from_numpy(near).to(group.dtype).double().numpy()
        values = torch.from_numpy(scales[:, None] * row).to(group.dtype).double().numpy()
        exact = (values == u).all(axis=1)
        if exact.any():
            codes = torch.from_numpy(np.concatenate([np.zeros(distinct.numel() - u.size), row])).to(torch.int16)
            return codes.to(group.device)[where] * group.sign().to(torch.int16), float(scales[exact.argmax()])
    return None
