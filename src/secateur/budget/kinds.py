"""The kinds of limits: one for each meter of the catalog, and the accuracy drop, which no meter can price.

A meter prices levels before anything is trained and measures what is written. The drop is a difference of metrics: it
is judged when a training is over, and a search over budgets answers it (`run/search.py`). All that is particular to it
as a limit is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from secateur import catalog
from secateur.limits import near, quantity, quoted

if TYPE_CHECKING:
    from secateur.contracts import Meter
    from secateur.types import Inventory, Limit

DROP = "accuracy_drop"
FIRST = "nbytes"  # what is made small where nothing says which size to look at
_ROOM = "budget.meters"
_ORDER = ("values", "channels", "weights")


@cache
def meter(kind: str) -> Meter:
    """The meter of that kind."""
    return catalog.load(_ROOM, kind)()  # type: ignore[no-any-return]


def meters() -> dict[str, Meter]:
    """Every meter by its kind: bytes, then what fewer channels lower, then what zeros lower."""
    found = {kind: meter(kind) for kind in catalog.names(_ROOM)}
    return dict(sorted(found.items(), key=lambda item: (_ORDER.index(item[1].lowered_by), item[0])))


def counted() -> dict[str, Meter]:
    """The meters that need no machine: what every network is told by."""
    return {kind: m for kind, m in meters().items() if not m.on_machine}


def on_machine(limits: Iterable[Limit]) -> list[str]:
    """The limited kinds that a machine decides."""
    return [x.kind for x in metered(limits) if meter(x.kind).on_machine]


def up(kind: str, value: float) -> float:
    """The value rounded up to what is told of that kind; of counts an int."""
    step = meter(kind).step
    steps = math.ceil(value / step - 1e-9)
    return steps if step == 1 else round(steps * step, 9)


def with_margin(kind: str, value: float) -> float:
    """A limit that another training can be expected to keep where one net costs `value`."""
    return up(kind, up(kind, value * (1 + 2 * meter(kind).margin)) + 4 * meter(kind).step)


def known() -> list[str]:
    """Every kind that a budget may name."""
    return [*catalog.names(_ROOM), DROP]


def metered(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """The limits that a meter prices."""
    return tuple(x for x in limits if x.kind != DROP)


def measured(net: Inventory, kinds: Sequence[str] | None = None) -> dict[str, float]:
    """What a written network costs, by each of these kinds (None: all that need no machine); whole numbers as int."""
    chosen = counted() if kinds is None else {kind: meter(kind) for kind in kinds}
    return {kind: m.measure(net) for kind, m in chosen.items()}


def unit(kind: str) -> str:
    """The unit of a kind's values; of a kind that nobody here knows an empty text (somebody else's report)."""
    if kind == DROP:
        return "points"
    return meter(kind).unit if kind in catalog.names(_ROOM) else ""


def parse(kind: str, given: Any) -> float:
    """A budget's value in base units: `6KB` -> 6000, `0.1pt` -> 0.001, `1.5K` -> 1500.

    Raises:
        ValueError: an unknown kind, or what its meter cannot read.

    >>> parse("nbytes", "6KiB"), parse("accuracy_drop", "0.1pt"), parse("nnz", "1.75K")
    (6144.0, 0.001, 1750.0)
    >>> parse("nbytes", 637_056 / 15)
    42470.0
    """
    if kind not in known():
        raise ValueError(f"budget key {quoted(kind)} is unknown{near(kind, known())}")
    try:
        value = _parse_drop(given) if kind == DROP else meter(kind).parse(given)
    except ValueError as e:
        raise ValueError(f"budget.{kind}: {e}") from None
    if not math.isfinite(value) or (value == 0 and kind != DROP):
        raise ValueError(f"budget.{kind}: {quoted(given)}; a positive value is needed")
    return value


def write(kind: str, value: float) -> str:
    """A budget's value with the unit that `parse` needs."""
    return f"{round(100 * value, 9):.12g}pt" if kind == DROP else meter(kind).write(value)


def _parse_drop(given: Any) -> float:
    number, found = quantity(given)
    if found not in ("pt", "%"):
        raise ValueError(f"{quoted(given)} needs the unit pt (percentage points), as 0.1pt")
    return number / 100
