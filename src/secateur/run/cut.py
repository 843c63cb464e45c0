"""Physical removal of dead units between the stages of a run, and the terms that go on after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from secateur import catalog, graph
from secateur.contracts import Constraint, Term
from secateur.run.net import Net
from secateur.types import Level, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from secateur.graph import Example, Traced


def cut(net: Net, example: Example) -> Net:
    """Remove dead units, where the sets that remain do not mind; training goes on faster after it."""
    if not net.may_cut:
        return net
    small, edits = graph.shrink(net.module, net.traced)
    traced = graph.trace(small, example)
    params = {k: p.detach() for k, p in small.named_parameters()}
    terms, levels = _terms_after_cut(net, traced, params, edits)
    return replace(net, module=small, traced=traced, terms=terms, levels=levels, surgery=[*net.surgery, edits])


def narrow(net: Net, example: Example, terms_of: Callable[[Traced], tuple[Term, ...]]) -> Net:
    """The same terms on the physically smaller net, on the way between two legs of an approach.

    Args:
        terms_of: the recipe's terms on a traced net.
    """
    small, edits = graph.shrink(net.module, net.traced)
    traced = graph.trace(small, example)
    before = {t.site.name: t for t in net.terms}
    terms = tuple(
        replace(t, level=before[t.site.name].level) if t.given and t.site.name in before else t
        for t in terms_of(traced)
    )
    return replace(net, module=small, traced=traced, terms=terms, levels={}, surgery=[*net.surgery, edits])


def _terms_after_cut(
    net: Net, traced: Traced, params: Mapping[str, Tensor], edits: Mapping[str, Any]
) -> tuple[tuple[Term, ...], dict[str, Level]]:
    """Terms on the smaller net: what is zero stays zero, value constraints go on at their level."""
    topk = catalog.load("constraints", "topk")()
    sites = {s.name: s for s in traced.sites}
    touched: set[str] = set()
    values: dict[str, tuple[Constraint, Level]] = {}
    shared: list[tuple[Site, Constraint, Level]] = []  # value sets over several weights, or parts of one
    for t in net.terms:
        touched |= {m.param for m in t.site.members}
        if t.site.op == "channels":
            touched |= {m.param for m in t.site.removes}
        for part, level in t.constraint.split(net.levels[t.site.name]):
            if part.kind != "values" or level is None:
                continue
            if t.site.op != "channels":
                values[t.site.name] = (part, level)
            elif (mapped := graph.after_cut(t.site, edits)) is not None:
                shared.append((mapped, part, level))
    given = {m.param for t in net.terms if t.given for m in t.site.members}
    terms: list[Term] = []
    levels: dict[str, Level] = {}
    for name, site in sites.items():
        if name not in touched:
            continue
        nnz = int(params[name].count_nonzero())
        support: Level = nnz if nnz < site.n else None
        constraint: Constraint = topk
        if name not in values:
            levels[name] = support
        elif support is None:
            constraint, levels[name] = values[name]
        else:
            constraint = catalog.load("constraints", "both")(parts=(topk, values[name][0]))
            levels[name] = (support, values[name][1])
        terms.append(Term(site, constraint, levels[name] if name in given else None, name in given))
    for site, part, level in shared:  # given from here on: a last trim lowers supports, which are priced one by one
        levels[site.name] = level
        terms.append(Term(site, part, level, True))
    return tuple(terms), levels
