"""The budget on a net: what it costs as it would be written, final levels, and the last trims. For every loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateur.budget import spending
from secateur.budget.spending import Spending
from secateur.errors import BudgetError
from secateur.export.membership import Asked
from secateur.export.written import Template, Written
from secateur.graph.counts import left_out, left_out_note, sizes
from secateur.run.net import Net
from secateur.terms import feasible
from secateur.training.loop import load_weights
from secateur.types import Level, Limit, Weights

TRIMS = 4


def purse(net: Net, limits: Sequence[Limit], template: Template, told: Callable[[], None]) -> Spending:
    """The budget's prices on `net`.

    Args:
        template: the dense net's graph.
        told: called before each costly pricing: for progress, and for an interrupt.
    """
    limits = spending.metered(limits)
    asks_bytes = any(x.kind == "nbytes" for x in limits)

    def costs_of(near: Weights) -> spending.Costs:
        told()
        return costs(net, near, template if asks_bytes else None)

    note = left_out_note(left_out(net.traced)) or ""
    held = {m.param for t in net.terms for m in t.site.members}
    free = {n: math.prod(s) for n, s in net.traced.program.shapes.items() if len(s) > 1 and n not in held}
    return Spending(net.terms, limits, costs_of, net.traced.effective, left_out=note, untouched=free)


def costs(net: Net, weights: Weights, template: Template | None) -> dict[str, Any]:
    """`counts.sizes` of the network that would be written with `weights`; bytes are 0 without a template."""
    small = net.smaller(weights)
    return sizes(small, net.traced, 0 if template is None else template.nbytes(small, net.terms))


@dataclass
class Fitted:
    """Final levels: the weights with their supports projected, and what the written network then costs."""

    levels: dict[str, Level]
    near: Weights
    sizes: dict[str, Any]


def fit(
    net: Net,
    budget: Spending,
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

    def written_at(levels: Mapping[str, Level]) -> spending.Costs:
        told()
        near = net.supported(levels, weights, h)
        cost = costs(net, net.member(levels, {**weights, **near}), template)
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


def tighter(net: Net, limit: float, files: Written) -> Spending:
    """A budget for a net whose file turned out too large: what its estimates missed, and a little more, is booked."""
    over = len(files.sct) - limit
    found = Spending(net.terms, (Limit("nbytes", limit),))
    beyond = len(files.sct) - found.expected_nbytes(net.levels, net.weights)
    found.fixed["nbytes"] = beyond + 0.2 * over + 8
    return found


def trimmed(
    net: Net,
    limit: float | None,
    write: Callable[[Net, int], tuple[Net, Written]],
    repair: Callable[[Net, Spending, int], Net],
) -> tuple[Net, Written]:
    """The written net; while its file is too large, the levels are tightened a little and `repair` retrains.

    Args:
        write: net and number of the trim -> the net and its files.
        repair: net, tighter budget and number of the trim -> the net at levels that keep it.
    Raises:
        BudgetError: with the smallest file that was written.
    """
    smallest = math.inf
    for trim in range(TRIMS + 1):
        net, files = write(net, trim)
        if limit is None or len(files.sct) <= limit:
            return net, files
        smallest = min(smallest, len(files.sct))
        if trim < TRIMS:
            net = repair(net, tighter(net, limit, files), trim)
    assert limit is not None
    raise BudgetError(
        f"budget: nbytes <= {limit:g} was missed by {smallest - limit:g} bytes after {TRIMS} trims; "
        "raise the budget or constrain more layers",
        smallest,
        kind="nbytes",
    )


def not_members(net: Net) -> list[str]:
    """Sites of a net whose weights are not in their sets at their levels."""
    return feasible.contains(net.terms, net.levels, net.weights)
