"""Physical removal of dead units between the stages of a run, and the terms that go on after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secateur import graph
from secateur.contracts import Term
from secateur.run.net import Net
from secateur.terms import cutting
from secateur.types import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from secateur.graph import Example, Traced


def cut(net: Net, example: Example) -> Net:
    """Remove dead units, as far as the sets survive it; training goes on faster after it.

    Every set goes on, on what is left of its site, at the tightest level that the weights are in. Where activations are
    quantized everything stays: no constant can be folded exactly between rounded values.
    """
    if net.activations:
        return net
    small, edits = graph.shrink(net.module, net.traced, pinned=net.pinned)
    traced = graph.trace(small, example)
    params = {k: p.detach() for k, p in small.named_parameters()}
    terms = []
    for term in _terms_after(net, traced, edits):
        terms.append(replace(term, level=cutting.tightened(term, params)))
    levels = {t.site.name: t.level for t in terms}
    terms = [t if t.given else replace(t, level=None) for t in terms]
    return replace(net, module=small, traced=traced, terms=tuple(terms), levels=levels, surgery=[*net.surgery, edits])


def narrow(net: Net, example: Example, terms_of: Callable[[Traced], tuple[Term, ...]]) -> Net:
    """The same terms on the physically smaller net, on the way between two legs of an approach.

    Args:
        terms_of: the recipe's terms on a traced net.
    """
    small, edits = graph.shrink(net.module, net.traced, pinned=net.pinned)
    traced = graph.trace(small, example)
    before = {t.site.name: t for t in _terms_after(net, traced, edits) if t.given}
    terms = tuple(
        replace(t, constraint=before[t.site.name].constraint, level=before[t.site.name].level)
        if t.given and t.site.name in before
        else t
        for t in terms_of(traced)
    )
    return replace(net, module=small, traced=traced, terms=terms, levels={}, surgery=[*net.surgery, edits])


def _terms_after(net: Net, traced: Traced, edits: Mapping[str, Any]) -> list[Term]:
    """The terms on the smaller net with their levels, as their sets say (`Constraint.after_cut`)."""
    sites = {s.name: s for s in traced.sites}
    terms: list[Term] = []
    for term in net.terms:
        site: Site | None = sites.get(term.site.name)
        if term.site.op == "channels":
            site = graph.after_cut(term.site, edits)
        if site is None:  # nothing of it is left
            continue
        level = net.levels.get(term.site.name, term.level)
        constraint, level = cutting.after_cut(term, level, net.traced.program.shapes, edits)
        terms.append(replace(term, site=site, constraint=constraint, level=level))
    return terms
