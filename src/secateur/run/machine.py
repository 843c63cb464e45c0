"""The table of a machine under a run: the points that the recipe's sets need of it, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.budget.machine import LATENCY, Machine, pattern_of
from secateur.contracts import Term
from secateur.engine import clock, latency, tabulate
from secateur.engine.latency import CHANNELS, Table
from secateur.engine.session import InferenceSession
from secateur.errors import UsageError
from secateur.graph import counts
from secateur.limits import quoted
from secateur.run import forms
from secateur.terms import views
from secateur.types import Stage, Weights

if TYPE_CHECKING:
    from torch import nn

    from secateur.engine.tabulate import Form, Told
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe

FACTS = ("latency.table", "latency.ratio")  # what was timed before the first level, as a ledger names it
OF_DENSE = 25, 5  # runs and turns of the dense net at the beginning
_LONG, _FEW = 20.0, 5  # ms from which on so few runs tell: of what takes so long a scheduler's turn is a small part
_RATIOS = (0.5, 2.0)  # outside of these something else is wrong than the table


def patterns(terms: Iterable[Term], weights: Weights) -> list[str]:
    """Where zeros may lie by these sets, as a table names it; narrower nets where channels or ranks go."""
    found: dict[str, None] = {}
    for t in terms:
        if t.site.op == "channels" or t.constraint.stage == Stage.FORM:
            found[CHANNELS] = None
        elif any(part.stage == Stage.SUPPORT for part, _ in t.constraint.split(None)):
            found[pattern_of(t, views.shape(t.site, t.constraint.view, weights))] = None
    return list(found)


def table(
    file: bytes, form: Form, dense: nn.Module, terms: Iterable[Term], integers: Iterable[str], told: Told
) -> Table:
    """What this machine's engine takes for the layers of the net, timed or remembered.

    Args:
        file: the net as `.onnx`; `form`: in integers and narrower (`run/forms.py`).
        terms: of the net that is asked about.
        integers: weights of layers whose activations are to be quantized.
    """
    weights = {k: p.detach() for k, p in dense.named_parameters()}
    return tabulate.table(file, patterns(terms, weights), form, " ".join(sorted(integers)), told)


def machine(
    file: Callable[[], bytes],
    example: Example,
    dense: nn.Module,
    traced: Traced,
    terms: Sequence[Term],
    recipe: Recipe,
    fact: Callable[[str, Callable[[], Any]], Any],
    told: Told,
) -> Machine:
    """The table that the recipe names, or this machine's; and how the dense net's time now is to the table's.

    Args:
        file: answers the net as `.onnx`, where something must be timed; `example`: what nets are written on.
        fact: remembers an answer by its name for a run that is resumed.
    Raises:
        UsageError, FormatError: the file is none, or it is the table of another net.
    """
    integers = frozenset(recipe.build_activations(traced.sites))
    if recipe.latency.table is not None:
        found = latency.read(recipe.latency.table)
        _check(found, terms, recipe.latency.table)
        return Machine(found, integers, given=True)
    form = forms.form(dense, traced, example, integers)
    made = fact(FACTS[0], lambda: table(file(), form, dense, terms, integers, told).json())
    here = Machine(latency.parse(made), integers)
    dense_file = form if integers else lambda bits, width: file()
    return replace(here, ratio=fact(FACTS[1], lambda: _ratio(here, dense_file(8, 1.0), dense, traced)))


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

    In integers where the answer is to compute in them. Few runs tell: a trim learns the rest.
    """
    told = here.of(counts.weights(dense, traced), {})[LATENCY]()
    runs, turns = OF_DENSE
    if told >= _LONG:
        runs = _FEW
    found = clock.timed(InferenceSession(file, threads=1, tune="off"), runs, turns).us
    return corrected(1.0, told, 1e-3 * found)


def corrected(ratio: float, told: float, found: float) -> float:
    """The ratio of measured and predicted after a net that was to take `told` took `found`."""
    return float(np.clip(ratio * found / told, *_RATIOS)) if told > 0 else ratio
