"""Channels and what is inside them under a limit that a machine decides: how much of the way each of them goes.

What a layer takes is no sum of what its channels and the zeros inside them take: half of the channels at half of the
weights may cost a fifth or a half. So the way from the dense net to the limit is split. Channels go a part of it,
priced with nothing else removed; then what is inside them goes the rest, priced at the width that is left, where layers
do add up. Of a few splits the one counts that keeps most of the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.budget import kinds, losses, overlap
from secateur.budget.menus import matrices
from secateur.contracts import Term
from secateur.curves import Product
from secateur.errors import BudgetError
from secateur.terms import views
from secateur.types import Level, Limit, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.terms.feasible import Importance

    _Matrices = Mapping[str, tuple[Tensor, Tensor | None]]

_PARTS = (1.0, 0.5, 0.0)  # of the way that channels go
_STEP = 1.5  # the largest that a limit shrinks at once: prices of channels hold near today's widths
_NEAR, _ROUNDS = 0.97, 4  # of the limit, and how often it is asked for until so much of it is spent

Levels = dict[str, Level]
_Costs = NDArray[np.float64]  # by each limit


class Asked(Protocol):
    """Who chooses levels by prices that hold beside some levels (`allocate.Allocator`)."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """All sites."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What they share."""

    def asked(self, terms: tuple[Term, ...], limits: tuple[Limit, ...]) -> Asked:
        """The same of these terms and limits, whose losses count by the share of a layer that is kept."""

    def at(self, levels: Mapping[str, Level], weights: Weights) -> Asked:
        """The same with prices beside these levels."""

    def chosen(self, matrices_of: _Matrices, budgets: _Costs) -> Levels:
        """Levels of the free sites within the budgets. BudgetError: there are none."""

    def spent(self, levels: Mapping[str, Level], weights: Weights) -> _Costs:
        """What the free sites cost."""

    def tightest(self, weights: Weights, importance: Importance) -> Levels:
        """The cheapest levels of the free sites."""

    def refuse(self, matrices_of: _Matrices, which: int, budgets: _Costs) -> NoReturn:
        """BudgetError with the smallest reachable value."""


def levels(whole: Asked, weights: Weights, importance: Importance, budgets: _Costs) -> Levels:
    """The levels of all sites of `whole`, the given ones as they are given.

    Args:
        budgets: what the free sites may cost, by each limit, given levels apart.
    Raises:
        BudgetError: a limit cannot be met.
    """
    begin = {t.site.name: t.level if t.given else None for t in whole.terms}
    best, least = None, np.inf
    for found in _ways(whole, begin, weights, importance, budgets) if (budgets > 0).all() else ():
        lost = losses.lost(whole.terms, found, weights, importance)
        if lost < least:
            best, least = found, lost
    if best is not None:
        return best
    tightest = _tightest(whole, begin, weights, importance)
    here = whole.at(tightest, weights)
    over = here.spent(tightest, weights) > budgets * (1 + 1e-9)
    if over.any():  # by what these very levels cost
        held = tuple(replace(t, level=tightest[t.site.name], given=True) for t in here.terms)
        matrices_of = {t.site.name: matrices(t, weights, importance) for t in here.terms}
        here.asked(held, whole.limits).refuse(matrices_of, int(np.argmax(over)), budgets)
    return tightest


def _tightest(whole: Asked, begin: Levels, weights: Weights, importance: Importance) -> Levels:
    """The cheapest levels: beside other levels other ones may be, for a narrow layer is no faster with zeros."""
    found = begin | whole.tightest(weights, importance)
    for _ in range(_ROUNDS):
        again = begin | whole.at(found, weights).tightest(weights, importance)
        now, before = (whole.at(x, weights).spent(x, weights) for x in (again, found))
        if not (now < before).any() or (now > before).any():
            break
        found = again
    return found


def _ways(whole: Asked, begin: Levels, weights: Weights, importance: Importance, budgets: _Costs) -> Iterator[Levels]:
    """Levels within the limits, by how much of the way channels go."""
    loosest = {**begin, **_loosest(whole, begin, weights)}
    held = tuple(t if _channels(t) else replace(t, level=loosest[t.site.name], given=True) for t in whole.terms)
    limits = tuple(x for x in whole.limits if kinds.meter(x.kind).on_machine)
    width = whole.asked(held, limits)
    of_machine = np.array([kinds.meter(x.kind).on_machine for x in whole.limits])
    dense = whole.at(loosest, weights).spent(loosest, weights)[of_machine]
    inside = any(not t.given and not _channels(t) for t in whole.terms)
    seen: list[Levels] = []
    for part in _PARTS if inside else _PARTS[:1]:
        target = np.minimum(budgets[of_machine], dense) ** part * dense ** (1 - part)
        try:
            found = _narrowed(width, loosest, weights, importance, dense, target)
        except BudgetError:
            continue
        if found in seen:
            continue
        seen.append(found)
        rest = tuple(replace(t, given=t.given or _channels(t)) for t in whole.at(found, weights).terms)
        here = whole.asked(overlap.alone(rest), whole.limits)
        left = budgets - (whole.at(found, weights).spent(found, weights) - here.spent(found, weights))
        try:
            chosen = found | here.chosen(losses.judged(whole.terms, found, weights, importance), left)
        except BudgetError:
            continue
        if (whole.at(chosen, weights).spent(chosen, weights) <= budgets * (1 + 1e-9)).all():
            yield chosen


def _narrowed(
    width: Asked,
    state: Levels,
    weights: Weights,
    importance: Importance,
    dense: _Costs,
    target: _Costs,
) -> Levels:
    """Fewer channels until the net is within the target, in small steps: prices are right near the widths of today."""
    n = max(int(np.ceil(np.log((dense / target).max()) / np.log(_STEP))), 1)
    allowed = [target * (dense / target) ** (1 - i / n) for i in range(1, n)] + [target] * _ROUNDS
    for limit in allowed if (dense > target).any() else ():
        found = state | width.at(state, weights).chosen(losses.judged(width.terms, state, weights, importance), limit)
        spent = width.at(found, weights).spent(found, weights)
        done = (limit == target).all() and (spent <= target * (1 + 1e-9)).all() and (spent > _NEAR * target).any()
        if done or found == state:
            return found
        state = found
    return state


def _loosest(whole: Asked, begin: Levels, weights: Weights) -> Levels:
    """Of the free sites inside, the level at which nothing is zero: as it is, or in integers where that is cheaper."""
    found: Levels = {}
    for t in whole.terms:
        if t.given or _channels(t):
            continue
        menu = t.constraint.levels(views.shape(t.site, t.constraint.view, weights))
        last = tuple(m[-1] for m in menu.menus) if isinstance(menu, Product) else menu[-1]
        there = {**begin, t.site.name: last}
        cheaper = whole.at(there, weights).spent(there, weights) < whole.at(begin, weights).spent(begin, weights)
        found[t.site.name] = last if cheaper.any() else None
    return found


def _channels(term: Term) -> bool:
    return term.site.op == "channels"
