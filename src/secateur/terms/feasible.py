"""From terms and levels to feasible weights: project, check, split. Pure.

Terms act in the order given, so two terms on one parameter (a channel group, then the weights inside it) compose:
the later one must keep the earlier one's structure, which support sets do because zeros stay zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secateur.contracts import Term
from secateur.terms import views
from secateur.types import Chain, Level, Member, Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor

Levels = Mapping[str, Level]
Importance = Mapping[str, "Tensor | None"]


def project(terms: Sequence[Term], levels: Levels, weights: Weights, importance: Importance | None = None) -> Weights:
    """The weights with every term's site replaced by its nearest member; parameters outside the terms are not listed.

    Args:
        weights: parameter name -> tensor; not changed.
        importance: per site name the matrix h of the term's view, or None.
    """
    out: dict[str, Tensor] = {m.param: weights[m.param] for t in terms for m in t.site.members}
    for term in terms:
        level = levels[term.site.name]
        if level is None:
            continue
        view = term.constraint.view
        h = None if importance is None else importance.get(term.site.name)
        near = term.constraint.project(views.matrix(term.site, view, out), level, h)
        out.update(views.write(term.site, view, out, near))
    return out


def without(terms: Sequence[Term], levels: Levels, weights: Weights, importance: Importance) -> dict[str, Tensor]:
    """The parameters along removed channels, those channels zero in them: rows of producers, columns of readers."""
    found: dict[str, Tensor] = {}
    for t in terms:
        if t.site.op != "channels" or levels[t.site.name] is None:
            continue
        site, view = t.site, t.constraint.view
        near = t.constraint.project(views.matrix(site, view, weights), levels[site.name], importance.get(site.name))
        gone = (near == 0).all(1, keepdim=True)
        for m in (m for m in (*site.members, *site.removes) if m.param in weights):
            alone, params = replace(site, members=(m,)), {m.param: found.get(m.param, weights[m.param])}
            found |= views.write(alone, view, params, views.matrix(alone, view, params).masked_fill(gone, 0))
    return found


def contains(terms: Sequence[Term], levels: Levels, weights: Weights) -> list[str]:
    """Names of the sites whose weights are not members at their level; empty when all constraints hold."""
    return [
        t.site.name
        for t in terms
        if levels[t.site.name] is not None
        and not t.constraint.contains(views.matrix(t.site, t.constraint.view, weights), levels[t.site.name])
    ]


def grids(terms: Sequence[Term], weights: Weights) -> dict[str, Tensor]:
    """Scales of the parameters that a term's set holds on an integer grid of int8 codes: one, or one a row, shaped to
    multiply the parameter.

    Parameters that are gone or that something (a fold into the bias) has moved off the grid are not listed.
    """
    found: dict[str, Tensor] = {}
    for term in terms:
        for name in (m.param for m in term.site.members if m.param in weights):
            w = weights[name].detach()
            own = replace(term.site, op="linear") if term.site.op == "channels" else term.site
            alone = replace(own, members=(Member(name),))
            scale = term.constraint.grid(views.matrix(alone, "oc", {name: w}))
            if scale is not None and scale.numel() > 1:
                scale = views.spread(alone, scale, w)
            if scale is not None:
                found[name] = scale
    return found


def chains(terms: Sequence[Term], weights: Weights) -> dict[str, Chain]:
    """Of the parameters whose set stores them as a product, and whose values are one that is shorter: the factors."""
    found: dict[str, Chain] = {}
    for term in terms:
        (member, *others), view = term.site.members, term.constraint.view
        if term.constraint.stage != Stage.FORM or others or member.param not in weights:
            continue
        form = term.constraint.realize(views.matrix(term.site, view, weights).detach(), None)
        if isinstance(form, Chain):
            found[member.param] = form
    return found


def support_only(terms: Sequence[Term], levels: Levels) -> tuple[tuple[Term, ...], dict[str, Level]]:
    """The terms without their sets of values: what holds between the approach and the snap."""
    kept: list[Term] = []
    at: dict[str, Level] = {}
    for term in terms:
        left = term.constraint.before(Stage.VALUES, levels[term.site.name])
        if left is not None:
            kept.append(Term(term.site, left[0], left[1], term.given))
            at[term.site.name] = left[1]
    return tuple(kept), at


def has_values(terms: Sequence[Term]) -> bool:
    """Does any term restrict the values (bits, codebook) and not only the support?"""
    return any(t.constraint.stage == Stage.VALUES for t in terms)


def as_level(value: Any) -> Level:
    """A level as JSON gives it back (lists become tuples again)."""
    return tuple(as_level(v) for v in value) if isinstance(value, list) else value
