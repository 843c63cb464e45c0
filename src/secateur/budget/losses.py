"""What levels take away from a net whose channels go with their readers' columns: of each site, and in all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from secateur.contracts import Term
from secateur.terms import feasible, views
from secateur.terms.feasible import without
from secateur.types import Level, Site, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.terms.feasible import Importance

Levels = Mapping[str, Level]


def lost(terms: Sequence[Term], levels: Levels, weights: Weights, importance: Importance) -> float:
    """What the supports at these levels take away: the sum of -log of the share of w^2 that each layer keeps."""
    live = {**weights, **without(terms, levels, weights, importance)}
    inside = [t for t in terms if t.site.op != "channels"]
    supports, at = feasible.support_only(inside, levels)
    near = {**live, **feasible.project(supports, at, live, importance)}
    touched = [k for k in near if near[k] is not weights[k] and weights[k].dim() > 1]
    total = 0.0
    for k in touched:
        whole, kept = (float(w.double().square().sum()) for w in (weights[k], near[k]))
        total += math.log(max(whole, 1e-300) / kept) if kept > 0 else math.inf
    return total


def judged(
    terms: Sequence[Term], levels: Levels, weights: Weights, importance: Importance
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """By site the matrix that its levels are judged by beside these levels, and an importance that makes layers equal.

    Every weight counts as a share of its layer's h w^2. Channels stand beside the columns that their readers lose with
    them: a price that counts these must not be held against a distance that does not, or a first layer of nine weights
    a channel is cut down to nothing. Inside channels that are gone nothing can be lost.
    """
    live = {**weights, **without(terms, levels, weights, importance)}
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for t in terms:
        site, view, h = t.site, t.constraint.view, importance.get(t.site.name)
        matrix = views.matrix(site, view, weights).detach()
        h = matrix.new_ones(matrix.shape) if h is None else h
        if h.shape != matrix.shape:
            h = views.matrix(site, view, {site.members[0].param: h})
        if site.op != "channels":
            found[site.name] = views.matrix(site, view, live).detach(), h / _energy(matrix, h)
            continue
        found[site.name] = _with_readers(site, view, weights, h)
    return found


def _with_readers(site: Site, view: str, weights: Weights, h: Tensor) -> tuple[Tensor, Tensor]:
    import torch  # lazily, as in `terms/views.py`

    readers = [m for m in site.removes if m.param in weights and weights[m.param].dim() > 1]
    parts, shares, at = [], [], 0
    for i, m in enumerate((*site.members, *readers)):
        part = views.matrix(replace(site, members=(m,)), view, weights).detach()
        own = h[:, at : at + part.shape[1]] if i < len(site.members) else part.new_ones(part.shape)
        at += part.shape[1]
        parts.append(part)
        shares.append(own / max(float(weights[m.param].double().square().sum() * own.double().mean()), 1e-300))
    return torch.hstack(parts), torch.hstack(shares)


def _energy(matrix: Tensor, h: Tensor) -> float:
    return max(float((h.double() * matrix.double().square()).sum()), 1e-300)
