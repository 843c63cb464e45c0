"""Menus made finite: for each free site the (distance, cost) pairs of some of its levels, refined where it matters.

A menu may hold every k of a layer with millions of weights. It is sampled at a few hundred levels, spread in the
logarithm of the position; once a level is chosen, `zoom` adds the levels around it until the spacing is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur.contracts import Constraint, Meter, Term
from secateur.curves import Curve, Joint, Product, Sketch, thinned
from secateur.terms import views
from secateur.types import Level, Packing, Site, Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
_GRID, _JOINT_GRID, _VALUE_LEVELS, _OTHER_LEVELS, _ZOOM = 256, 64, 16, 6, 128


@lru_cache(maxsize=1 << 18)
def packed(constraint: Constraint, shape: tuple[int, int], level: Level) -> tuple[Packing, ...]:
    """`constraint.packing` of each stored tensor, remembered: prices do not depend on weights. None = dense fp32."""
    n = shape[0] * shape[1]
    found = Packing(n, n) if level is None else constraint.packing(shape, level)
    return (found,) if isinstance(found, Packing) else found


def cost(meter: Meter, site: Site, packings: Sequence[Packing]) -> float:
    """What a site costs by one meter: the sum over its stored tensors, less what other sets on its weights pay."""
    factor, part = site.overlap.get(meter, (1.0, 0.0))
    return factor * sum(meter.cost(site, p) for p in packings) - part


def matrices(term: Term, weights: Weights, importance: Mapping[str, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """The term's matrix and its importance; the latter may come in the parameter's shape or in the matrix's."""
    matrix = views.matrix(term.site, term.constraint.view, weights).detach()
    h = importance.get(term.site.name)
    if h is not None and h.shape != matrix.shape:
        h = views.matrix(term.site, term.constraint.view, {term.site.members[0].param: h})
    return matrix, h


def priced(term: Term, shape: tuple[int, int], level: Level, meters: Sequence[Meter]) -> tuple[float, ...]:
    """Cost of one site at one level, by each meter."""
    packings = packed(term.constraint, shape, level)
    return tuple(cost(m, term.site, packings) for m in meters)


# By branch and position in its menu: distance and costs.
Known: TypeAlias = dict[tuple[int, int], tuple[float, tuple[float, ...]]]


@dataclass(eq=False)
class _Branch:
    """One ordered run of levels (of joint sets: of one part, with the others' levels held)."""

    levels: Sequence[Level]
    distance: Curve
    at: NDArray[np.int64]  # positions sampled so far, ascending


@dataclass(eq=False)
class Options:
    """The sampled choices of one site. `distance` [m], `cost` [m, meters]; `level(i)` is choice i's level."""

    term: Term
    shape: tuple[int, int]
    meters: Sequence[Meter]
    scale: float
    branches: list[_Branch]
    known: Known  # grows
    logarithmic: bool = False  # by the share kept: the last weights of a layer are worth more than the first

    def __post_init__(self) -> None:
        self._tabulate()

    def _tabulate(self) -> None:
        self._index = [(b, int(i)) for b, branch in enumerate(self.branches) for i in branch.at]
        for b, branch in enumerate(self.branches):
            new = [int(i) for i in branch.at if (b, int(i)) not in self.known]
            levels = [branch.levels[i] for i in new]
            for i, level, d in zip(new, levels, _distances(branch.distance, levels), strict=True):
                self.known[b, i] = (self._counted(d), priced(self.term, self.shape, level, self.meters))
        rows = [self.known[key] for key in self._index]
        self.distance: Floats = np.array([d for d, _ in rows])
        self.cost: Floats = np.array([c for _, c in rows]).reshape(len(rows), len(self.meters))

    def _counted(self, d: float) -> float:
        if self.logarithmic:
            return -math.log(max(1.0 - self.scale * d, 1e-30)) / self.scale
        return self.scale * d

    def level(self, i: int) -> Level:
        b, at = self._index[i]
        return self.branches[b].levels[at]

    def zoom(self, i: int) -> int:
        """Sample the neighbourhood of choice `i` more finely; its new index."""
        b, at = self._index[i]
        branch = self.branches[b]
        j = int(np.searchsorted(branch.at, at))
        low, high = branch.at[max(j - 1, 0)], branch.at[min(j + 1, len(branch.at) - 1)]
        more = np.linspace(low, high, min(int(high - low) + 1, _ZOOM)).astype(np.int64)
        grown = np.union1d(branch.at, more)
        if len(grown) == len(branch.at):
            return i
        branch.at = grown
        self._tabulate()
        return self._index.index((b, at))


def _distances(curve: Curve, levels: Sequence[Level]) -> list[float]:
    """The curve at each level; a run of a joint set at once."""
    joint = [x for x in levels if isinstance(x, tuple)]
    run = len(joint) == len(levels) and sum(len(set(part)) > 1 for part in zip(*joint, strict=True)) <= 1
    if isinstance(curve, Sketch) and joint and run:
        return curve.many(joint)
    return [0.0 if level is None else curve(level) for level in levels]


class Curves:
    """The curve of each site as last asked for; made anew only where weights, importance or set have changed.

    The budget is asked again and again about the same weights (files are written until one fits), and an estimate for
    pairs solves a hundred codebooks.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Constraint, Tensor, Tensor | None, Curve]] = {}
        self._prices: dict[str, tuple[Curve, tuple[Any, ...], Known]] = {}
        self._scales: dict[str, tuple[Curve, float]] = {}

    def __call__(self, term: Term, matrix: Tensor, h: Tensor | None) -> Curve:
        known = self._last.get(term.site.name)
        if known and known[0] == term.constraint and _same(known[1], matrix) and _same(known[2], h):
            return known[3]
        kept, importance = matrix.clone(), None if h is None else h.clone()
        curve = term.constraint.distance(kept, importance)
        self._last[term.site.name] = (term.constraint, kept, importance, curve)
        return curve

    def prices(self, term: Term, *asked: Any) -> Known:
        """What `Options` has found out of this very term and curve (the one last answered), asked in the same way."""
        curve, known = self._last[term.site.name][3], self._prices.get(term.site.name)
        if known is None or known[0] is not curve or known[1] != (term, *asked):
            known = self._prices[term.site.name] = curve, (term, *asked), {}
        return known[2]

    def scale(self, term: Term, matrix: Tensor, h: Tensor | None) -> float:
        """`scale_of` of what the last curve was made of."""
        curve, known = self._last[term.site.name][3], self._scales.get(term.site.name)
        if known is None or known[0] is not curve:
            known = self._scales[term.site.name] = curve, scale_of(matrix, h)
        return known[1]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    import torch  # lazily, as everywhere in this room

    if a is None or b is None:
        return a is b
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def options(
    term: Term,
    matrix: Tensor,
    h: Tensor | None,
    meters: Sequence[Meter],
    at_least: int,
    relative: bool,
    curves: Curves | None = None,
    logarithmic: bool = False,
) -> Options:
    """The first sample of a free term's menu, "leave dense" included where the set permits it."""
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    curves = curves or Curves()
    menu, curve = term.constraint.levels(shape), curves(term, matrix, h)
    estimate: Curve = curve.estimate if isinstance(curve, Joint) else curve
    branches = [_Branch([None], lambda level: 0.0, np.zeros(1, np.int64))] * term.constraint.may_stay_dense
    if isinstance(menu, Product):
        branches += _runs(term.constraint, menu, estimate, shape, meters, at_least)
    else:
        levels = _floor(menu, at_least) if term.constraint.stage == Stage.SUPPORT else menu
        branches.append(_Branch(levels, estimate, _spread(len(levels), _GRID)))
    known = curves.prices(term, tuple(meters), at_least, relative, logarithmic)
    scale = curves.scale(term, matrix, h) if relative or logarithmic else 1.0
    return Options(term, shape, meters, scale, branches, known, logarithmic)


def _runs(
    constraint: Constraint,
    menu: Product,
    estimate: Curve,
    shape: tuple[int, int],
    meters: Sequence[Meter],
    at_least: int,
) -> Iterator[_Branch]:
    """A joint menu as runs: along its longest menu of supports for some levels of the rest, and along the values."""
    parts = [part for part, _ in constraint.split(None)]
    supports = [i for i, part in enumerate(parts) if part.stage == Stage.SUPPORT]
    along = max(supports, key=lambda i: (len(menu.menus[i]), -i))
    first = _floor(menu.menus[along], at_least)
    few = [thinned(_floor(menu.menus[i], at_least), _OTHER_LEVELS) for i in supports if i != along]
    if len(supports) == len(parts):
        for rest in product(*few):
            yield _Branch(_Run(first, along, rest, len(first) - 1), estimate, _spread(len(first), _GRID))
        return
    raw = [None] if _may_stay_raw(parts[-1], menu.menus[-1], meters) else []  # as the supports alone have them
    # Where no limit counts their bits, fewer values save nothing.
    counted = any(m.lowered_by == "values" for m in meters)
    for value in [*raw, *(thinned(menu.menus[-1], _VALUE_LEVELS) if counted else menu.menus[-1][-1:])]:
        for others in product(*few):
            rest = (*others, value)
            run = _Run(first, along, rest, _dearest(constraint, shape, _Run(first, along, rest, len(first) - 1)))
            yield _Branch(run, estimate, _spread(len(run), _GRID if value is None else _JOINT_GRID))
    loosest = tuple(menu.menus[i][-1] for i in supports)
    whole = [(*loosest, value) for value in menu.menus[-1]]  # every value level with no weight dropped
    yield _Branch(whole, estimate, _spread(len(whole), _JOINT_GRID))


def _may_stay_raw(values: Constraint, menu: Sequence[Level], meters: Sequence[Meter]) -> bool:
    """May the values of a joint set stay as they are? Where fewer bits pay for it, and nobody capped their number.

    Under other limits raw values cost nothing, and the set that was asked for would be left out everywhere.
    """
    if not values.may_stay_dense or not any(m.lowered_by == "values" for m in meters):
        return False
    return bool(type(values)().levels((1, 1))[-1] == menu[-1])


def scale_of(matrix: Tensor, h: Tensor | None) -> float:
    """1 / sum h w^2 (1 where that is 0): makes the distances of sites relative."""
    square = matrix.detach().double().square()
    total = float((square if h is None else square * h.detach().double()).sum())
    return 1.0 / total if total > 0 else 1.0


def _dearest(constraint: Constraint, shape: tuple[int, int], run: Sequence[Level]) -> int:
    """The first place of a run along supports from which on all cost the same beside its other levels.

    Few values round weights to zero by themselves: supports of nearly all weights cost what the whole costs, and an
    estimate of the distance must not choose among them.
    """

    def estimate(level: Level) -> float:
        return sum(p.estimate for p in packed(constraint, shape, level))

    most, low, high = estimate(run[-1]), 0, len(run) - 1
    while low < high:
        middle = (low + high) // 2
        same = estimate(run[middle]) >= most * (1 - 1e-9)
        low, high = (low, middle) if same else (middle + 1, high)
    return low


class _Run(Sequence[Level]):
    """Tuples with the first `n` levels of a menu, and its last, in place `at` of `rest`."""

    def __init__(self, menu: Sequence[Level], at: int, rest: tuple[Level, ...], n: int) -> None:
        self.menu, self.before, self.after, self.n = menu, rest[:at], rest[at:], n

    def __len__(self) -> int:
        return self.n + 1

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        return (*self.before, self.menu[i if 0 <= i < self.n else -1], *self.after)


def _floor(menu: Sequence[Level], at_least: int) -> Sequence[Level]:
    """The levels that keep at least that many units (all of them, when the menu has no more)."""
    if isinstance(menu, range):
        return menu[min(at_least, len(menu) - 1) :] if menu.start == 0 and menu.step == 1 else menu
    kept = [level for level in menu if not isinstance(level, int) or level >= at_least]
    return kept or menu


def _spread(n: int, grid: int) -> NDArray[np.int64]:
    """Up to about `grid` of n positions: geometric from the front, and evenly so that the end is not coarse."""
    if n <= grid:
        return np.arange(n)
    front = np.geomspace(1, n, grid * 3 // 4).astype(np.int64) - 1
    return np.unique(np.concatenate([front, np.linspace(0, n - 1, grid // 4).astype(np.int64)]))
