"""The budget on a net: what it costs as it would be written, final levels, and the last trims. For every loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secateur.budget import kinds
from secateur.budget.fit import Costs
from secateur.budget.machine import LATENCY
from secateur.budget.purse import Purse
from secateur.errors import BudgetError
from secateur.export.membership import Asked
from secateur.export.written import Template, Written
from secateur.graph.counts import left_out, left_out_note, weights
from secateur.run.machine import corrected
from secateur.run.net import Net
from secateur.terms import feasible
from secateur.training.loop import load_weights
from secateur.types import Level, Limit, Stage, Weights

Readings = Mapping[str, Mapping[str, Any]]  # by kind: `Net.reading`
TRIMS = 4
_MORE, _MORE_SHARE = 8.0, 0.03  # booked beyond what a file was too large: bytes, and at most this share of the limit


def purse(net: Net, limits: Sequence[Limit], template: Template, told: Callable[[], None]) -> Purse:
    """The budget's prices on `net`.

    Args:
        template: the dense net's graph.
        told: called before each costly pricing: for progress, and for an interrupt.
    """
    limits = kinds.metered(limits)

    def costs_of(near: Weights) -> Costs:
        told()
        return costs(net, near, template, [x.kind for x in limits])

    note = left_out_note(left_out(net.traced)) or ""
    held = {m.param for t in net.terms for m in (*t.site.members, *t.site.removes)}  # what loses channels costs less
    free = tuple(w for w in weights(net.module, net.traced) if w.counted and w.name not in held)
    effective, companions = net.traced.effective, net.companions
    return Purse(net.terms, limits, costs_of, effective, left_out=note, untouched=free, companions=companions)


def costs(net: Net, near: Weights, template: Template, chosen: Sequence[str] | None = None) -> dict[str, float]:
    """What the network costs that would be written with the weights `near`, by each of these kinds.

    Args:
        chosen: None: all that need no machine.
    """
    small = net.smaller(near, "of doubts")
    terms = net.terms
    return net.predicted(small, lambda: template.nbytes(small, terms), chosen, lambda: template.file(small))


@dataclass
class Fitted:
    """Final levels: the weights with their supports projected, and what the written network then costs."""

    levels: dict[str, Level]
    near: Weights
    sizes: dict[str, Any]


def fit(
    net: Net,
    budget: Purse,
    h: Mapping[str, Tensor | None],
    template: Template,
    told: Callable[[], None] = lambda: None,
) -> Fitted:
    """Final levels from today's weights, tightened until the written file fits; the net holds its support from then on.

    Raises:
        BudgetError: with the nearest reachable size.
    """
    weights = {k: w.clone() for k, w in net.weights.items()}
    found: dict[str, Fitted] = {}
    rounded = any(p.stage == Stage.VALUES for t in net.terms for p, _ in t.constraint.split(None))

    def written_at(levels: Mapping[str, Level]) -> Costs:
        told()
        near = net.supported(levels, weights, h)
        support = {**weights, **near}
        cost = costs(net, net.member(levels, support), template, net.kinds)
        if rounded:  # to zero today, maybe not when it is trained: of the support is counted what no margin covers
            cost |= costs(net, support, template, [k for k in net.kinds if not kinds.meter(k).margin])
        found["last"] = Fitted(dict(levels), near, cost)
        return cost

    levels = budget.fit(weights, h, written_at)
    if "last" not in found or found["last"].levels != levels:
        written_at(levels)
    load_weights(net.module, found["last"].near)
    net.levels = dict(levels)
    if net.asked is None:  # trims come later: they tighten terms that a cut has rewritten
        net.asked = Asked(net.terms, dict(levels), len(net.surgery))
    return found["last"]


def tighter(net: Net, limit: Limit, cost: float) -> Purse:
    """A budget for a net that was written and costs too much: what the estimates missed, and a little more, is booked.

    Args:
        cost: what it costs.
    """
    found = Purse(net.terms, (limit,))
    beyond = cost - found.expected(limit.kind, net.levels, net.weights)
    found.fixed[limit.kind] = beyond + 0.2 * (cost - limit.value) + min(_MORE, _MORE_SHARE * limit.value)
    return found


def trimmed(
    net: Net,
    limits: Sequence[Limit],
    write: Callable[[Net, int], tuple[Net, Written]],
    repair: Callable[[Net, Purse, int], Net],
    reading: Callable[[Net, Written, str, int], Mapping[str, Any]] = lambda net, files, kind, trim: net.reading(
        files, kind
    ),
) -> tuple[Net, Written, Readings]:
    """The written net; while it misses a limit that training moves, the levels are tightened a little and `repair`
    retrains.

    Args:
        limits: all limits; those on what only the kept weights decide were met when the levels were found.
        write: net and number of the trim -> the net and its files.
        repair: net, tighter budget and number of the trim -> the net at levels that keep it.
        reading: net, its files, a kind that a machine decides and number of the trim -> `Net.reading`. Where it misses,
            the table's prices are corrected by the measured ratio.
    Raises:
        BudgetError: with the smallest cost that was reached.
    """
    moved = {x.kind: x for x in limits if kinds.meter(x.kind).margin}
    smallest: dict[str, float] = {}
    kind = ""
    for trim in range(TRIMS + 1):
        net, files = write(net, trim)
        readings = {k: reading(net, files, k, trim) for k in kinds.on_machine(moved.values())}
        found = net.costs(files, [k for k in moved if k not in readings])
        found |= {k: r["value"] for k, r in readings.items()}
        missed = [k for k, cost in found.items() if cost > moved[k].value]
        if not missed:
            return net, files, readings
        kind = missed[0]
        smallest[kind] = min(smallest.get(kind, math.inf), found[kind])
        if trim < TRIMS:
            net = _as_read(net, readings)
            net = repair(net, tighter(net, moved[kind], found[kind]), trim)
    over = smallest[kind] - moved[kind].value
    nearest = kinds.with_margin(kind, smallest[kind]) if kind in readings else smallest[kind]
    raise BudgetError(
        f"budget: {kind} <= {moved[kind].value:g} was missed by {over:g} {kinds.meter(kind).unit} after {TRIMS} trims; "
        f"raise the budget{f' to {nearest:g}' if kind in readings else ''} or constrain more layers",
        nearest,
        kind=kind,
    )


def _as_read(net: Net, readings: Readings) -> Net:
    """The net with its machine's prices as the files of these readings show them."""
    if net.machine is None or net.machine.given or LATENCY not in readings:
        return net
    now = readings[LATENCY]
    ratio = corrected(net.machine.ratio, now["predicted"], now["value"])
    return replace(net, machine=replace(net.machine, ratio=ratio))


def reachable(net: Net, kind: str, h: Mapping[str, Tensor | None], template: Template) -> float:
    """A limit of that kind that another training of `net` can be expected to reach: a price with a margin, no bound.

    What the tightest levels gave after one training is no such limit: trained for another budget, the vectors outside
    the sets have other values, and another entropy. Here they are priced at values that are all different.
    """
    weights = {k: w.clone() for k, w in net.weights.items()}
    levels = _tightest(net, kind, weights, h)
    near = dict(net.member(levels, {**weights, **net.supported(levels, weights, h)}))
    held = {m.param for t in net.terms for m in t.site.members}
    for name, p in net.module.named_parameters():
        if p.requires_grad and p.is_floating_point() and name not in held:
            near[name] = _all_different(p.detach())
    cost = costs(net, near, template, [kind])[kind]
    return kinds.with_margin(kind, cost)  # positions and values in the sets move a little


def _tightest(net: Net, kind: str, weights: Weights, h: Mapping[str, Tensor | None]) -> dict[str, Level]:
    """The cheapest levels by the estimates."""
    purse = Purse(net.terms, (Limit(kind, 1e-9),))
    try:
        return purse.levels(weights, h, 1.0, strict=True)
    except BudgetError as e:
        return purse.tightest(e, weights, h)


def _all_different(like: Tensor) -> Tensor:
    """Values over eight powers of two, of both signs, in a fixed order."""
    at = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    spread = 2.0 ** (-8 * (at * 0.6180339887498949 % 1)) * (1 - 2 * (at % 2))
    return spread.to(like.dtype).view_as(like)


def not_members(net: Net) -> list[str]:
    """Sites of a net whose weights are not in their sets at their levels."""
    return feasible.contains(net.terms, net.levels, net.weights)
