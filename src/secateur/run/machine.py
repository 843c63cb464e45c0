"""The table of a machine under a run: the points that the recipe's sets need of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from secateur.budget.menus import packed
from secateur.contracts import Term
from secateur.engine.latency import ANY, CHANNELS
from secateur.terms import views
from secateur.types import Stage, Weights

if TYPE_CHECKING:
    from torch import nn

    from secateur.engine.latency import Table
    from secateur.engine.tabulate import Told
    from secateur.graph import Example


def patterns(terms: Iterable[Term], weights: Weights) -> list[str]:
    """Where zeros may lie by these sets, as a table names it; narrower layers where channels or ranks go."""
    found = {ANY: None}
    for t in terms:
        shape = views.shape(t.site, t.constraint.view, weights)
        menu = t.constraint.levels(shape)
        found |= dict.fromkeys(p.pattern for p in packed(t.constraint, shape, menu[len(menu) // 2]))
        if t.site.op == "channels" or t.constraint.stage == Stage.FORM:
            found[CHANNELS] = None
    return list(found)


def table(dense: nn.Module, example: Example, terms: Iterable[Term], integers: bool, told: Told) -> Table:
    """What this machine's engine takes for the layers of the net, timed or remembered.

    Args:
        terms: of the net that is asked about; `integers`: activations are to be quantized.
    """
    from secateur.engine import tabulate
    from secateur.export import written
    from secateur.graph.copying import copied

    weights = {k: p.detach() for k, p in dense.named_parameters()}
    file = written.exported_bytes(copied(dense).eval(), example)
    return tabulate.table(file, patterns(terms, weights), (32, 8) if integers else (32,), told)
