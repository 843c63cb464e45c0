"""What the constraints share: reading a recipe's level, checking what comes in, counts on the way to a level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.errors import ConstraintError, check_finite
from secateur.native._native import keep_largest as keep_largest_of
from secateur.types import Level

_SAMPLE = 1024  # elements that are looked at first


def checked(subject: str, weight: Tensor, importance: Tensor | None) -> None:
    """Raise ConstraintError unless `weight` is a finite float matrix and `importance` a finite h >= 0 beside it."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ConstraintError(
            f"{subject}: got a {weight.dtype} tensor of shape {list(weight.shape)}; "
            "a floating-point matrix [rows, cols] is needed; use views.matrix to make it"
        )
    check_finite(weight, subject)
    if importance is None:
        return
    if importance.shape != weight.shape:
        raise ConstraintError(
            f"{subject}: importance has shape {list(importance.shape)}, the weight {list(weight.shape)}; "
            "they must agree"
        )
    check_finite(importance, f"{subject}: importance")
    if bool((importance < 0).any()):
        raise ConstraintError(f"{subject}: importance holds negative values; h >= 0 is needed")


def on_menu(subject: str, shape: Sequence[int], level: Level, menu: Sequence[Level]) -> None:
    """Raise ConstraintError when `level` is not on the menu."""
    if isinstance(level, bool) or level not in menu:
        if len(menu) == 0:
            raise ConstraintError(f"{subject} {list(shape)}: the menu is empty; level {level!r} cannot be had")
        span = f"{menu[0]}..{menu[-1]}" if len(menu) > 6 else ", ".join(map(str, menu))
        raise ConstraintError(f"{subject} {list(shape)}: level {level!r} is not on the menu; {span} or None are")


def only_key(subject: str, given: Mapping[str, Any], known: Sequence[str]) -> tuple[str, Any]:
    """The single (key, value) of a recipe's level; ConstraintError names the known keys otherwise."""
    if len(given) != 1 or next(iter(given)) not in known:
        got = ", ".join(map(str, given)) or "nothing"
        raise ConstraintError(f"{subject}: level got {got}; exactly one of these keys is needed: {', '.join(known)}")
    return next(iter(given.items()))


def count(subject: str, key: str, value: Any, n: int) -> int:
    """Units kept out of `n`: from `sparsity` or `density` (a fraction, rounded down to what is kept) or a count.

    >>> count("topk", "sparsity", 0.9, 10), count("topk", "density", 0.19, 10), count("topk", "nnz", 4, 10)
    (1, 1, 4)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConstraintError(f"{subject}: {key} is {value!r}; a number is needed")
    if key in ("sparsity", "density"):
        if not 0 <= value <= 1:
            raise ConstraintError(f"{subject}: {key} is {value!r}; a fraction between 0 and 1 is needed")
        kept = (1 - value) * n if key == "sparsity" else value * n
        return min(n, math.floor(kept + 1e-9 * max(n, 1)))  # 0.1 * 10 must give 1, not 0
    return whole(subject, key, value, 0, n)


def whole(subject: str, key: str, value: Any, low: int, high: int) -> int:
    """`value` as an int within low..high, or ConstraintError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ConstraintError(f"{subject}: {key} is {value!r}; a whole number is needed")
    if not low <= value <= high:
        raise ConstraintError(f"{subject}: {key} is {value}; {low}..{high} is possible here")
    return int(value)


def on_the_way(n: int, level: int, tightness: float) -> int | None:
    """n^(1-t) * level^t, rounded up: the count on the way from all `n` (None at t = 0) to `level` (t = 1)."""
    if tightness <= 0.0:
        return None
    if tightness >= 1.0:
        return level
    way = math.pow(n, 1.0 - tightness) * math.pow(max(level, 1), tightness)
    return min(n, max(level, math.ceil(way - 1e-9 * way)))


def at_most(level: Level, n: int) -> Level:
    """The count `level` where no more than `n` units are left; None stays None."""
    assert level is None or isinstance(level, int)
    return None if level is None else min(level, n)


def keep_largest(score: Tensor, k: int) -> Tensor:
    """Boolean mask of the `k` largest of a 1-D score; equal scores: the lower index stays. O(n) selection, compiled."""
    kept = keep_largest_of(score.detach().double().cpu().numpy(), min(max(k, 0), score.numel()))
    return torch.from_numpy(kept).to(score.device)


def distinct(weight: Tensor, most: int) -> Tensor | None:
    """The distinct values, ascending, or None where there are more than `most`.

    Sorting a large tensor is what a projection spent most of its time with: a sample says no at once, and where it does
    not, only values that it lacks are sorted.
    """
    flat = weight.detach().flatten()
    if flat.numel() == 0:
        return flat
    found = torch.unique(flat[:: max(1, flat.numel() // _SAMPLE)])
    if found.numel() > most:
        return None
    at = torch.searchsorted(found, flat).clamp_(max=found.numel() - 1)
    others = flat[found[at] != flat]
    if others.numel():
        found = torch.unique(torch.cat([found, torch.unique(others)]))
    return found if found.numel() <= most else None


def without(weight: Tensor, dropped: Tensor) -> Tensor:
    """A new tensor, zero where `dropped`. A -0.0 becomes 0.0: formats keep bits, so -0.0 would count as a nonzero."""
    return weight.masked_fill(dropped, 0.0).add_(0.0)


def scores(weight: Tensor, importance: Tensor | None) -> Tensor:
    """sqrt(h) * |w| in float64: the order of h w^2 without its underflow."""
    size = weight.detach().double().abs()
    return size if importance is None else size * importance.detach().double().sqrt()


def gains(weight: Tensor, importance: Tensor | None) -> Tensor:
    """h w^2 in float64."""
    square = weight.detach().double().square()
    return square if importance is None else square * importance.detach().double()
