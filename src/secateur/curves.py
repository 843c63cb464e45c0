"""Lazy curves level -> squared distance, and lazy menus. NumPy only; the allocator knows these forms.

A curve is any callable `Level -> float`. `Tail` is the one with structure: independent units (weights, rows), of
which the `level` best are kept, so the distance is the sum of what is dropped. Sums of such sites under one additive
budget have an exact answer (see `budget.allocate`).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from secateur.types import Level

Curve = Callable[[Level], float]


@dataclass(frozen=True, eq=False)
class Tail:
    """Keep the `level` largest of `gains`: distance(level) = sum of the others.

    Attributes:
        gains: float64 [units], >= 0, in flat order, unsorted. Sorted once, at the first call.
    """

    gains: NDArray[np.float64]

    @cached_property
    def _dropped(self) -> NDArray[np.float64]:
        """_dropped[j] = sum of the j smallest gains; summed from the small end, so small tails keep their digits."""
        return np.concatenate([[0.0], np.cumsum(np.sort(self.gains))])

    def __call__(self, level: Level) -> float:
        if level is None:
            return 0.0
        assert isinstance(level, int)
        return float(self._dropped[self.gains.size - level])

    def many(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """The distances of several levels at once."""
        return self._dropped[self.gains.size - levels]


@dataclass(frozen=True, eq=False)
class Memo:
    """A curve that remembers what it has computed."""

    compute: Curve
    _known: dict[Any, float] = field(default_factory=dict)

    def __call__(self, level: Level) -> float:
        if level is None:
            return 0.0
        if level not in self._known:
            self._known[level] = self.compute(level)
        return self._known[level]


@dataclass(frozen=True, eq=False)
class Joint:
    """A curve over tuples of levels with a cheap estimate beside the true value (a joint projection is costly)."""

    exact: Curve
    estimate: Curve

    def __call__(self, level: Level) -> float:
        return self.exact(level)


@dataclass(frozen=True, eq=False)
class Sketch:
    """An estimate over tuples of levels, fast for many that differ in one place: a menu is sampled in such runs."""

    many: Callable[[Sequence[tuple[Level, ...]]], list[float]]

    def __call__(self, level: Level) -> float:
        if level is None:
            return 0.0
        assert isinstance(level, tuple)
        return float(self.many([level])[0])


class Product(Sequence[Level]):
    """The tuples (a, b, ...) of some menus, lazily, the first one fastest. None (a part left dense) is in none."""

    def __init__(self, *menus: Sequence[Level]) -> None:
        self.menus = menus

    def __len__(self) -> int:
        return math.prod(len(menu) for menu in self.menus)

    @overload
    def __getitem__(self, i: int) -> Level: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Level]: ...
    def __getitem__(self, i: int | slice) -> Level | Sequence[Level]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        rest, level = i % len(self), []
        for menu in self.menus:
            rest, at = divmod(rest, len(menu))
            level.append(menu[at])
        return tuple(level)

    def __contains__(self, level: object) -> bool:
        if not isinstance(level, tuple) or len(level) != len(self.menus):
            return False
        return all(at in menu for at, menu in zip(level, self.menus, strict=True))

    def __iter__(self) -> Iterator[Level]:
        return (self[i] for i in range(len(self)))


def thinned(menu: Sequence[Level], at_most: int = 16) -> list[Level]:
    """At most `at_most` levels of a menu, ends included, evenly spread in the logarithm of the position."""
    if len(menu) <= at_most:
        return list(menu)
    spread = np.unique(np.round(np.geomspace(1, len(menu), at_most)).astype(int) - 1)
    return [menu[int(i)] for i in spread]


def nearest_not_above(menu: Sequence[int], value: float) -> int:
    """The largest entry of an ascending menu that is <= value (the first entry when none is)."""
    return menu[max(bisect.bisect_right(menu, value) - 1, 0)]


@dataclass(frozen=True)
class DistanceCurve:
    """Callable level -> squared distance, by projecting: the curve of a set that knows no cheaper one.

    Attributes:
        project: of a set. weight, importance: float tensors, as `Constraint.project` takes them.
    """

    project: Callable[..., Any]
    weight: Any
    importance: Any

    def __call__(self, level: Level) -> float:
        if level is None:
            return 0.0
        gap = (self.weight - self.project(self.weight, level, self.importance)).double().square()
        return float((gap if self.importance is None else gap * self.importance.double()).sum())
