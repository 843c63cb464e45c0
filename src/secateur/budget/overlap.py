"""Prices that add up where coupled channels and the weights inside them are chosen together.

Without this a kept weight is paid for twice: once dense, as part of its channel, and once by its own set. Where kept
weights have one price, a channel costs what the sets inside it cannot take away, and the rest is paid by what they keep
(`apart`). What a machine takes for a layer is no such sum: there prices hold beside some levels (`today`), a channel's
at the density that its layers have there, and what is inside at the width that is left; `split.py` finds the levels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from secateur.budget import kinds
from secateur.budget.machine import GroupPart, GroupPrice, LayerPrice
from secateur.budget.menus import cost, packed
from secateur.contracts import Meter, Term
from secateur.curves import Product
from secateur.terms import views
from secateur.types import Level, Packing, Site, Stage, Weights

Levels = Mapping[str, Level]
Shapes = Mapping[str, tuple[int, int]]  # of a site's matrix


def apart(terms: tuple[Term, ...], weights: Weights) -> tuple[Term, ...]:
    """The terms, their sites with `overlap` where coupled channels and other sets act on the same weights.

    Args:
        weights: of the net; their shapes matter.
    """
    inside = _inside(terms)
    channels = [t for t in terms if t.site.op == "channels"]
    found: dict[str, dict[object, tuple[float, float]]] = {t.site.name: {} for t in terms}
    for meter in kinds.meters().values() if channels else ():
        if meter.on_machine:
            along = {m.param for t in channels for m in (*t.site.members, *t.site.removes)}
            for p in along & inside.keys():
                found[inside[p].site.name][meter] = (1.0, _dense(meter, inside[p], weights))
            continue
        prices = {p: _ends(meter, t, weights) for p, t in inside.items()}
        left = Counter[str]()  # what of a weight's price its channels pay
        for t in channels:
            own = [m.param for m in t.site.members if m.param in inside]
            dense = _dense(meter, t, weights)
            saved = sum(prices[p][0] - prices[p][1] for p in own)
            left.update({p: prices[p][1] for p in own})
            if dense > 0 and own:
                found[t.site.name][meter] = (max(1.0 - saved / dense, 0.0), 0.0)
        for p, t in inside.items():
            if left[p]:
                found[t.site.name][meter] = (1.0, left[p])
    return tuple(replace(t, site=replace(t.site, overlap=found[t.site.name])) for t in terms)


def by_machine(terms: Sequence[Term]) -> bool:
    """Are there channels that a machine's table prices?"""
    return any(isinstance(p, GroupPrice) for t in terms for p in t.site.prices.values())


def today(terms: tuple[Term, ...], levels: Levels, shapes: Shapes) -> tuple[Term, ...]:
    """The terms with a machine's prices as they are at these levels: all together cost what the net takes there."""
    inside = _inside(terms)
    held = {p: packed(t.constraint, shapes[t.site.name], levels[t.site.name]) for p, t in inside.items()}
    groups = {t.site.name: (_kept(t, levels, shapes), _own(t.site)) for t in terms if t.site.op == "channels"}
    axes = Counter[str]()
    for _, own in groups.values():
        axes.update(own)
    share = {p: math.prod(kept ** own[p] for kept, own in groups.values()) for p in axes}

    def part(param: str, known: GroupPart, kept: float, own: int) -> GroupPart:
        own_share = kept**own
        others = share[param] / own_share if own_share > 0 else 1.0
        now = replace(known, held=_live(held[param], share[param]) if param in inside else known.held)
        return replace(now, own=own, axes=axes[param], others=others, today=now.at(share[param]))

    found = []
    for t in terms:
        site = t.site
        if site.name in groups:
            kept, own = groups[site.name]
            prices = {
                kind: replace(price, parts={p: part(p, of, kept, own[p]) for p, of in price.parts.items()})
                for kind, price in site.prices.items()
                if isinstance(price, GroupPrice)
            }
            site = replace(site, prices=prices)
        elif site.members and (param := site.members[0].param) in share and site.prices:
            here = {k: replace(p, share=share[param]) for k, p in site.prices.items() if isinstance(p, LayerPrice)}
            site = replace(site, prices=here)
            paid = dict(site.overlap)
            for m in site.overlap:
                if isinstance(m, Meter) and m.on_machine:
                    paid[m] = (1.0, sum(m.cost(site, p) for p in held[param]))
            site = replace(site, overlap=paid)
        found.append(replace(t, site=site))
    return tuple(found)


def alone(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms, those inside channels paying a machine's whole price: as where nobody chooses channels."""

    def others(site: Site) -> dict[object, tuple[float, float]]:
        return {m: part for m, part in site.overlap.items() if not (isinstance(m, Meter) and m.on_machine)}

    return tuple(
        t if t.site.op == "channels" else replace(t, site=replace(t.site, overlap=others(t.site))) for t in terms
    )


def _inside(terms: Sequence[Term]) -> dict[str, Term]:
    return {t.site.members[0].param: t for t in terms if t.site.op != "channels" and t.site.members}


def _own(site: Site) -> Counter[str]:
    """How many axes of each parameter are the group's."""
    return Counter(m.param for m in (*site.members, *site.removes))


def _kept(term: Term, levels: Levels, shapes: Shapes) -> float:
    """The share of a group's channels that are there."""
    found = packed(term.constraint, shapes[term.site.name], levels[term.site.name])
    return sum(p.nnz for p in found) / max(sum(p.n for p in found), 1)


def _live(held: Sequence[Packing], share: float) -> tuple[Packing, ...]:
    """What is stored of a weight at full width, as dense as it is in the share that is left."""
    return tuple(replace(p, nnz=min(round(p.nnz / share), p.n) if share > 0 else p.n) for p in held)


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
