"""The table of a machine under a run: the points that the recipe's sets need of it, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.budget import kinds
from secateur.budget.machine import LATENCY, Machine, pattern_of
from secateur.contracts import Term
from secateur.engine import latency, tabulate
from secateur.engine.latency import ANY, CHANNELS, Table
from secateur.errors import UsageError
from secateur.export import written
from secateur.graph import counts
from secateur.graph.copying import copied
from secateur.limits import quoted
from secateur.terms import views
from secateur.types import Inventory, Stage, Weights

if TYPE_CHECKING:
    from torch import nn

    from secateur.engine.tabulate import Told
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe

FACTS = ("latency.table", "latency.ratio")  # what was timed before the first level, as a ledger names it
_RATIOS = (0.5, 2.0)  # outside of these something else is wrong than the table


def patterns(terms: Iterable[Term], weights: Weights) -> list[str]:
    """Where zeros may lie by these sets, as a table names it; narrower layers where channels or ranks go."""
    found = {ANY: None}
    for t in terms:
        shape = views.shape(t.site, t.constraint.view, weights)
        found[pattern_of(t, shape)] = None
        if t.site.op == "channels" or t.constraint.stage == Stage.FORM:
            found[CHANNELS] = None
    return list(found)


def table(dense: nn.Module, example: Example, terms: Iterable[Term], integers: bool, told: Told) -> Table:
    """What this machine's engine takes for the layers of the net, timed or remembered.

    Args:
        terms: of the net that is asked about; `integers`: activations are to be quantized.
    """
    weights = {k: p.detach() for k, p in dense.named_parameters()}
    bits = (32, 8) if integers else (32,)
    return tabulate.table(_file(dense, example), patterns(terms, weights), bits, told)


def _file(dense: nn.Module, example: Example) -> bytes:
    return written.exported_bytes(copied(dense).eval(), example)


def machine(
    dense: nn.Module,
    traced: Traced,
    example: Example,
    terms: Sequence[Term],
    recipe: Recipe,
    fact: Callable[[str, Callable[[], Any]], Any],
    told: Told,
) -> Machine:
    """The table that the recipe names, or this machine's; and how the dense net's time now is to the table's.

    Args:
        fact: remembers an answer by its name for a run that is resumed.
    Raises:
        UsageError, FormatError: the file is none, or it is the table of another net.
    """
    integers = frozenset(recipe.build_activations(traced.sites))
    if recipe.latency.table is not None:
        found = latency.read(recipe.latency.table)
        _check(found, terms, recipe.latency.table)
        return Machine(found, integers, given=True)
    made = fact(FACTS[0], lambda: table(dense, example, terms, bool(integers), told).json())
    here = Machine(latency.parse(made), integers)
    return replace(here, ratio=fact(FACTS[1], lambda: _ratio(here, dense, traced, example)))


def _check(found: Table, terms: Iterable[Term], path: str) -> None:
    for t in terms:
        for m in t.site.members if t.site.op in ("conv", "linear", "channels") else ():
            if m.param not in found.layers:
                raise UsageError(
                    f"latency.table {path}: has no rows of {m.param}, which the recipe constrains; its layers are "
                    f"{quoted(', '.join(found.layers))}; make it of this recipe's net: secateur latency RECIPE -o FILE"
                )


def _ratio(here: Machine, dense: nn.Module, traced: Traced, example: Example) -> float:
    """What the dense net takes now by what the table says: a machine is not always as fast as it was.

    The dense net computes in floats, whatever the answer will do.
    """
    file = _file(dense, example)
    told = replace(here, integers=frozenset()).of(counts.weights(dense, traced), {})[LATENCY]()
    found = kinds.meter(LATENCY).measure(Inventory((), lambda: 0, lambda: file))
    return corrected(1.0, told, found)


def corrected(ratio: float, told: float, found: float) -> float:
    """The ratio of measured and predicted after a net that was to take `told` took `found`."""
    return float(np.clip(ratio * found / told, *_RATIOS)) if told > 0 else ratio
