"""What is said when a budget cannot be met: the nearest value, what holds the largest part, what to do."""

from __future__ import annotations

from collections.abc import Iterable

from secateur.budget import kinds
from secateur.contracts import Meter
from secateur.errors import BudgetError
from secateur.types import Inventory, Limit, Packing, Site, Weight


def unreachable(
    limit: Limit, smallest: float, site: str | None, untouched: Iterable[Weight], left_out: str
) -> BudgetError:
    """The tightest levels, priced for real, cost more than the limit.

    Args:
        site: that costs most.
        untouched: weights that no set acts on; `left_out`: in words those on which none can.
    """
    kind, meter = limit.kind, kinds.meter(limit.kind)
    also = f"; {left_out}" if left_out and not meter.in_file else ""
    return BudgetError(
        f"budget: {kind} <= {limit.value:g} cannot be met; {meter.least(smallest)}"
        f"{_holder(meter, untouched, smallest, site)}; raise the budget, constrain more layers "
        f"{'(' + hint + ') ' if (hint := biases_too(kind)) else ''}or give stronger constraints{also}",
        smallest,
        site,
        kind,
    )


def missed(limit: Limit, smallest: float, site: str | None, untouched: Iterable[Weight]) -> BudgetError:
    """No levels that were tried and written meet the limit."""
    kind, meter = limit.kind, kinds.meter(limit.kind)
    return BudgetError(
        f"budget: {kind} <= {limit.value:g} cannot be met: the {subject(kind)} stays at {smallest:g} "
        f"{meter.unit} however far the levels are lowered{_holder(meter, untouched, smallest, site)}; raise the "
        "budget, constrain more layers or give stronger constraints",
        smallest,
        site,
        kind,
    )


def subject(kind: str) -> str:
    """What costs that: the file, or the network."""
    return "file" if kinds.meter(kind).in_file else "network"


def biases_too(kind: str) -> str:
    """How to constrain biases, where they count."""
    bias = Site("", "bias", (1,), ())
    return "biases too: where: '*.bias'" if kinds.meter(kind).cost(bias, Packing(1, 1)) > 0 else ""


def _holder(meter: Meter, untouched: Iterable[Weight], smallest: float, site: str | None) -> str:
    """What holds the largest part: weights that no set acts on, where they are more than half; else that site."""
    rest = sorted(untouched, key=lambda w: -w.value.numel())
    dense = meter.measure(Inventory(tuple(rest), lambda: sum(4 * w.value.numel() for w in rest)))
    if dense > smallest / 2:
        more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
        shown = f"{', '.join(w.name for w in rest[:3])}{more}"
        return f", {dense:,} {meter.unit} of it in weights that no set acts on ({shown})"
    return "" if site is None else f", and {site} holds the largest part"
