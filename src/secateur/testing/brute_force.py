"""Brute-force oracles: the smallest distance to a set, by trying all members' structures of a tiny matrix.

Written from the sets' definitions alone; nothing of `constraints` is used. A set is known by the name of its class
(or of a base class); other sets bring their own oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]  # [candidates, n]
Oracle = Callable[[Any, Floats, Any, Floats], float]  # (constraint, weight [rows, cols], level, h) -> smallest distance


def smallest_distance(constraint: Any, weight: Floats, level: Any, h: Floats) -> float | None:
    """min over members Z of sum h (w - z)^2, or None when the set is unknown or the matrix too large."""
    for name in (c.__name__ for c in type(constraint).__mro__):
        if name in _ORACLES:
            return _ORACLES[name](constraint, weight, level, h)
    return None


def best_masks(constraint: Any, weight: Floats, level: Any, h: Floats) -> Masks | None:
    """All optimal supports of a support set, or None when the set is unknown."""
    rule = _rule(constraint)
    if rule is None or weight.size > 12:
        return None
    masks = _all(2, weight.size).astype(bool)
    masks = masks[rule(constraint, masks, weight.shape, level)]
    kept: Floats = masks @ (h * weight**2).ravel()
    best: Masks = masks[kept >= kept.max() * (1 - 1e-12)]
    return best


def _all(symbols: int, n: int) -> NDArray[np.int64]:
    """Every word of n symbols, [symbols^n, n]."""
    return np.indices((symbols,) * n).reshape(n, -1).T


def _rule(constraint: Any) -> Callable[..., NDArray[np.bool_]] | None:
    return next((_RULES[c.__name__] for c in type(constraint).__mro__ if c.__name__ in _RULES), None)


def _topk_rule(constraint: Any, masks: Masks, shape: tuple[int, int], level: int) -> NDArray[np.bool_]:
    return np.asarray(masks.sum(axis=1) <= level)


def _nm_rule(constraint: Any, masks: Masks, shape: tuple[int, int], level: int) -> NDArray[np.bool_]:
    return np.asarray((masks.reshape(len(masks), -1, constraint.m).sum(axis=2) <= level).all(axis=1))


def _rows_rule(constraint: Any, masks: Masks, shape: tuple[int, int], level: int) -> NDArray[np.bool_]:
    return np.asarray(masks.reshape(len(masks), *shape).any(axis=2).sum(axis=1) <= level)


_RULES = {"TopK": _topk_rule, "NM": _nm_rule, "Rows": _rows_rule}


def _support(constraint: Any, weight: Floats, level: int, h: Floats) -> float | None:
    masks = best_masks(constraint, weight, level, h)
    if masks is None:
        return None
    gains = (h * weight**2).ravel()
    return float((~masks @ gains).min())  # what is dropped, added up: the difference of two sums loses the small ones


def _groups(constraint: Any, weight: Floats, level: int, h: Floats) -> float | None:
    """N:M is a product over its groups: the sum of their own smallest distances."""
    pairs = zip(weight.reshape(-1, 1, constraint.m), h.reshape(-1, 1, constraint.m), strict=True)
    found = [_support(constraint, w, level, g) for w, g in pairs]
    return None if None in found else float(sum(d for d in found if d is not None))


def _codes(constraint: Any, level: int) -> NDArray[np.int64]:
    """The codes a uniform set may use."""
    top = 2 ** (level - 1) - (constraint.zero == "level")
    codes = np.arange(-top, top + 1)
    return codes[codes != 0] if constraint.zero == "never" else codes


def _uniform(constraint: Any, weight: Floats, level: int, h: Floats) -> float | None:
    codes = _codes(constraint, level)
    groups = [(weight.ravel(), h.ravel())] if constraint.per == "tensor" else list(zip(weight, h, strict=True))
    if len(codes) ** groups[0][0].size > 20_000:
        return None
    words = codes[_all(len(codes), groups[0][0].size)]
    return float(sum(_scaled(words, w, g).min() for w, g in groups))


def _scaled(words: NDArray[np.int64], w: Floats, h: Floats) -> Floats:
    """Error of each code word at its best scale."""
    s1, s2 = words @ (h * w), words**2 @ h
    return np.asarray((h * w * w).sum() - s1**2 / np.where(s2 > 0, s2, 1.0))


def _clustered(labels: NDArray[np.int64], m: int, w: Floats, h: Floats) -> Floats:
    """Error of each labelling with the best value per label < m; label m means zero."""
    error = np.full(len(labels), (h * w * w).sum())
    for c in range(m):
        member = labels == c
        s0, s1 = member @ h, member @ (h * w)
        error -= s1**2 / np.where(s0 > 0, s0, 1.0)
    return error


def _codebook(constraint: Any, weight: Floats, level: int, h: Floats) -> float | None:
    symbols = level + (constraint.zero == "free")
    if symbols**weight.size > 20_000:
        return None
    return float(_clustered(_all(symbols, weight.size), level, weight.ravel(), h.ravel()).min())


def _both(constraint: Any, weight: Floats, level: tuple[Any, Any], h: Floats) -> float | None:
    support, values = constraint.parts
    rule, (where, what) = _rule(support), level
    if rule is None or where is None or what is None:
        return None
    w, g = weight.ravel(), h.ravel()
    if "entries" in values.level_keys:
        if (what + 1) ** w.size > 20_000:
            return None
        words = _all(what + 1, w.size)
        words = words[rule(support, words != what, weight.shape, where)]
        return float(_clustered(words, what, w, g).min())
    if values.per != "tensor" or len(_codes(values, what)) ** w.size > 20_000:
        return None
    words = _codes(values, what)[_all(len(_codes(values, what)), w.size)]
    words = words[rule(support, words != 0, weight.shape, where)]
    return float(_scaled(words, w, g).min())


_ORACLES: dict[str, Callable[..., float | None]] = {
    "TopK": _support,
    "NM": _groups,
    "Rows": _support,
    "Uniform": _uniform,
    "Codebook": _codebook,
    "Both": _both,
}
