"""Prices that add up where coupled channels and the weights inside them are chosen together.

A channel that stays costs what the sets inside it cannot take away; the rest is paid by what they keep. Without this a
kept weight is paid for twice: once dense, as part of its channel, and once by its own set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from secateur.budget import kinds
from secateur.budget.menus import cost, packed
from secateur.contracts import Meter, Term
from secateur.curves import Product
from secateur.terms import views
from secateur.types import Level, Packing, Site, Stage, Weights


def apart(terms: tuple[Term, ...], groups: Iterable[Site], weights: Weights) -> tuple[Term, ...]:
    """The terms, their sites with `overlap` where coupled channels and other sets act on the same weights.

    Args:
        groups: all coupled channels of the net, whether or not a term acts on them: they share what a machine's table
            says of the layers between them.
        weights: of the net; their shapes matter.
    """
    inside = {t.site.members[0].param: t for t in terms if t.site.op != "channels" and t.site.members}
    channels = [t for t in terms if t.site.op == "channels"]
    axes = Counter(m.param for g in groups for m in (*g.members, *g.removes))
    found: dict[str, dict[object, tuple[float, float]]] = {t.site.name: {} for t in terms}
    for meter in kinds.meters().values() if channels else ():
        prices = {p: _ends(meter, t, weights) for p, t in inside.items()}
        left = Counter[str]()  # what of a weight's price its channels pay
        for t in channels:
            shares = {p: s for p, s in _shares(meter, t.site, axes).items() if p in inside}
            dense = _dense(meter, t, weights)
            saved = sum(s * (prices[p][0] - prices[p][1]) for p, s in shares.items())
            left.update({p: s * prices[p][1] for p, s in shares.items()})
            if dense > 0 and shares:
                found[t.site.name][meter] = (max(1.0 - saved / dense, 0.0), 0.0)
        for p, t in inside.items():
            if left[p]:
                found[t.site.name][meter] = (1.0, left[p])
    return tuple(replace(t, site=replace(t.site, overlap=found[t.site.name])) for t in terms)


def _shares(meter: Meter, site: Site, axes: Mapping[str, int]) -> dict[str, float]:
    """Parameter -> the share of its cost that is part of the channels' cost."""
    if not meter.on_machine:
        return dict.fromkeys((m.param for m in site.members), 1.0)
    own = Counter(m.param for m in (*site.members, *site.removes))
    return {p: n / max(axes[p], n) for p, n in own.items()}


def _dense(meter: Meter, term: Term, weights: Weights) -> float:
    rows, cols = views.shape(term.site, term.constraint.view, weights)
    return meter.cost(term.site, Packing(rows * cols, rows * cols))


def _ends(meter: Meter, term: Term, weights: Weights) -> tuple[float, float]:
    """Cost of one weight dense, and at the tightest level of its set (at the given one)."""
    shape = views.shape(term.site, term.constraint.view, weights)
    level = term.level if term.given else _tightest(term, shape)
    site = replace(term.site, overlap={})
    dense = _dense(meter, term, weights)
    return dense, min(cost(meter, site, packed(term.constraint, shape, level)), dense)


def _tightest(term: Term, shape: tuple[int, int]) -> Level:
    """The first level of each part's menu that keeps anything."""

    def first(menu: Sequence[Level], support: bool) -> Level:
        return menu[1] if support and menu[0] == 0 and len(menu) > 1 else menu[0]

    menu = term.constraint.levels(shape)
    if not isinstance(menu, Product):
        return first(menu, term.constraint.stage == Stage.SUPPORT)
    parts = [part.stage == Stage.SUPPORT for part, _ in term.constraint.split(None)]
    return tuple(first(m, support) for m, support in zip(menu.menus, parts, strict=True))
