"""Brute-force oracles: the smallest distance to a set, by trying all members' structures of a tiny matrix.

Nothing of `constraints` is used and no set is known here. A set of supports is known by what it `contains`, or better
by a rule that its test writes down once more (`Supports`); a set of values by the words that its test spells
(`words`, `scaled`, `clustered`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]  # [candidates, n]
# (constraint, weight [rows, cols], level, h) -> smallest distance, or None where that would take too long
Oracle = Callable[[Any, Floats, Any, Floats], "float | None"]
Rule = Callable[[Any, Masks, Any], NDArray[np.bool_]]  # (constraint, masks [candidates, rows, cols], level) -> members

_BY_RULE, _BY_CONTAINS = 12, 10  # elements of the largest matrix whose masks are all tried
MOST_WORDS = 20_000


@dataclass(frozen=True)
class Supports:
    """The oracle of a set of supports: every mask that is a member is tried."""

    rule: Rule | None = None  # None: what the set itself says that it contains

    def __call__(self, constraint: Any, weight: Floats, level: Any, h: Floats) -> float | None:
        """min over members Z of sum h (w - z)^2."""
        masks = self.best(constraint, weight, level, h)
        if masks is None or not len(masks):
            return None
        gains = (h * weight**2).ravel()
        return float((~masks @ gains).min())  # what is dropped, added up: the difference of two loses the small ones

    def best(self, constraint: Any, weight: Floats, level: Any, h: Floats) -> Masks | None:
        """All optimal supports."""
        if weight.size > (_BY_CONTAINS if self.rule is None else _BY_RULE):
            return None
        masks = _members(self.rule, constraint, weight.shape, level)
        kept: Floats = masks @ (h * weight**2).ravel()
        best: Masks = masks[kept >= kept.max(initial=0.0) * (1 - 1e-12)]
        return best


@lru_cache(maxsize=1024)
def _members(rule: Rule | None, constraint: Any, shape: tuple[int, int], level: Any) -> Masks:
    masks = words(2, shape[0] * shape[1]).astype(bool)
    if rule is not None:
        return masks[rule(constraint, masks.reshape(-1, *shape), level)]
    each = torch.from_numpy(masks.reshape(-1, *shape)).double()
    return masks[[constraint.contains(mask, level) for mask in each]]


def words(symbols: int, n: int) -> NDArray[np.int64]:
    """Every word of n symbols, [symbols^n, n]."""
    return np.indices((symbols,) * n).reshape(n, -1).T


def scaled(codes: NDArray[np.int64], w: Floats, h: Floats) -> Floats:
    """Error of each code word [words, n] at its best scale; w, h [n]."""
    s1, s2 = codes @ (h * w), codes**2 @ h
    return np.asarray((h * w * w).sum() - s1**2 / np.where(s2 > 0, s2, 1.0))


def clustered(labels: NDArray[np.int64], m: int, w: Floats, h: Floats) -> Floats:
    """Error of each labelling [words, n] with the best value per label < m; label m means zero; w, h [n]."""
    error = np.full(len(labels), (h * w * w).sum())
    for c in range(m):
        member = labels == c
        s0, s1 = member @ h, member @ (h * w)
        error -= s1**2 / np.where(s0 > 0, s0, 1.0)
    return error
