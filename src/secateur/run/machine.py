"""The table of a machine under a run: the points that the recipe's sets need of it, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.budget.machine import LATENCY, Machine, pattern_of
from secateur.contracts import Term
from secateur.engine import clock, latency, tabulate
from secateur.engine.latency import ANY, CHANNELS, Table
from secateur.engine.session import InferenceSession
from secateur.errors import UsageError
from secateur.graph import counts
from secateur.limits import quoted
from secateur.terms import views
from secateur.types import Stage, Weights

if TYPE_CHECKING:
    from torch import nn

    from secateur.engine.tabulate import Told
    from secateur.graph import Traced
    from secateur.recipe import Recipe

FACTS = ("latency.table", "latency.ratio")  # what was timed before the first level, as a ledger names it
_RUNS, _TURNS = 25, 5  # of the dense net at the beginning
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


def table(file: bytes, dense: nn.Module, terms: Iterable[Term], integers: bool, told: Told) -> Table:
    """What this machine's engine takes for the layers of the net, timed or remembered.

    Args:
        file: the net as `.onnx`.
        terms: of the net that is asked about; `integers`: activations are to be quantized.
    """
    weights = {k: p.detach() for k, p in dense.named_parameters()}
    bits = (32, 8) if integers else (32,)
    return tabulate.table(file, patterns(terms, weights), bits, told)


def machine(
    file: Callable[[], bytes],
    dense: nn.Module,
    traced: Traced,
    terms: Sequence[Term],
    recipe: Recipe,
    fact: Callable[[str, Callable[[], Any]], Any],
    told: Told,
) -> Machine:
    """The table that the recipe names, or this machine's; and how the dense net's time now is to the table's.

    Args:
        file: answers the net as `.onnx`, where something must be timed.
        fact: remembers an answer by its name for a run that is resumed.
    Raises:
        UsageError, FormatError: the file is none, or it is the table of another net.
    """
    integers = frozenset(recipe.build_activations(traced.sites))
    if recipe.latency.table is not None:
        found = latency.read(recipe.latency.table)
        _check(found, terms, recipe.latency.table)
        return Machine(found, integers, given=True)
    made = fact(FACTS[0], lambda: table(file(), dense, terms, bool(integers), told).json())
    here = Machine(latency.parse(made), integers)
    return replace(here, ratio=fact(FACTS[1], lambda: _ratio(here, file(), dense, traced)))


def _check(found: Table, terms: Iterable[Term], path: str) -> None:
    for t in terms:
        for m in t.site.members if t.site.op in ("conv", "linear", "channels") else ():
            if m.param not in found.layers:
                raise UsageError(
                    f"latency.table {path}: has no rows of {m.param}, which the recipe constrains; its layers are "
                    f"{quoted(', '.join(found.layers))}; make it of this recipe's net: secateur latency RECIPE -o FILE"
                )


def _ratio(here: Machine, file: bytes, dense: nn.Module, traced: Traced) -> float:
    """What the dense net takes now by what the table says: a machine is not always as fast as it was.

    The dense net computes in floats, whatever the answer will do. Few runs tell: a trim learns the rest.
    """
    told = replace(here, integers=frozenset()).of(counts.weights(dense, traced), {})[LATENCY]()
    found = clock.timed(InferenceSession(file, threads=1, tune="off"), _RUNS, _TURNS).us
    return corrected(1.0, told, 1e-3 * found)


def corrected(ratio: float, told: float, found: float) -> float:
    """The ratio of measured and predicted after a net that was to take `told` took `found`."""
    return float(np.clip(ratio * found / told, *_RATIOS)) if told > 0 else ratio
