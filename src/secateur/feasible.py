"""From terms and levels to feasible weights: project, freeze, check. Pure; shared by solvers, training and api.

Terms act in the order given, so two terms on one parameter (a channel group, then the weights inside it) compose:
the later one must keep the earlier one's structure, which support sets do because zeros stay zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secateur import views
from secateur.contracts import Constraint, Piece
from secateur.types import Level, Member, Term, Weights

if TYPE_CHECKING:
    from torch import Tensor

Levels = Mapping[str, Level]
Importance = Mapping[str, "Tensor | None"]
# Rounds of "drop the dead, spend their budget elsewhere". On the way one is enough: the next pruning comes anyway, each
# costs an allocation, and what is still dead keeps its value (zeroed, LeNet-5 at 246x ended 5 % below its budget).
_REFILLS, _REFILLS_ON_THE_WAY = 12, 1
_SETTLED = 0.002  # at the target: stop when no more than this fraction of the kept weights is dead


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


def split_levels(
    terms: Sequence[Term], levels: Levels, keep: Callable[[Constraint], bool]
) -> tuple[tuple[Term, ...], dict[str, Level]]:
    """Those parts of joint sets that `keep` accepts, as terms of their own with their levels."""
    kept: list[Term] = []
    at: dict[str, Level] = {}
    for term in terms:
        level = levels[term.site.name]
        for part, part_level in term.constraint.split(level):
            if keep(part):
                kept.append(Term(term.site, part, part_level, term.given))
                at[term.site.name] = part_level
    return tuple(kept), at


def support_only(terms: Sequence[Term], levels: Levels) -> tuple[tuple[Term, ...], dict[str, Level]]:
    """The terms without their value constraints: what holds between the approach and the snap."""
    return split_levels(terms, levels, lambda c: c.kind == "support")


def has_values(terms: Sequence[Term]) -> bool:
    """Does any term restrict the values (bits, codebook) and not only the support?"""
    return any(t.constraint.kind != "support" for t in terms)


def project_live(
    terms: Sequence[Term],
    allocate: Callable[[Weights, Importance, float], Mapping[str, Level]],
    weights: Weights,
    importance: Importance,
    tightness: float,
    effective: Callable[[Weights], Mapping[str, Tensor]] | None = None,
    companions: Callable[[Weights], Mapping[str, Tensor]] | None = None,
) -> tuple[dict[str, Level], dict[str, Tensor]]:
    """Allocate, project, drop weights that cannot matter, and let the freed budget go to others. Heuristic.

    A weight of a unit without inputs or without readers is *dead*: its importance becomes 0 and the projection is
    repeated from the same `weights`, so that the next best weight takes its place. At tightness 1 what is still dead
    after the last round is set to zero (the answer is then sparser than allowed, never denser).

    Args:
        companions: weights -> bool masks of what must go with removed channels (biases, norms); set to zero as well.
    Returns:
        levels per site name, and the projected parameters (new tensors).
    """
    import torch

    h = dict(importance)
    dead: dict[str, Tensor] = {}
    refills = _REFILLS if tightness >= 1.0 else _REFILLS_ON_THE_WAY
    for attempt in range(refills + 1):
        levels = dict(allocate(weights, h, tightness))
        near = {k: v.clone() if v is weights[k] else v for k, v in project(terms, levels, weights, h).items()}
        if companions is not None:
            for name, kept in companions({**weights, **near}).items():
                near[name] = near.get(name, weights[name]).masked_fill(~kept, 0)
        if effective is None:
            return levels, near
        alive = effective({**weights, **near})
        n_dead = n_kept = 0
        for name, w in near.items():
            useless = (w != 0) & ~alive[name] if name in alive else torch.zeros_like(w, dtype=torch.bool)
            n_dead, n_kept = n_dead + int(useless.sum()), n_kept + int(w.count_nonzero())
            if bool(useless.any()):
                dead[name] = dead[name] | useless if name in dead else useless
        if n_dead == 0 or attempt == refills or (tightness >= 1.0 and n_dead <= _SETTLED * n_kept):
            break
        for term in terms:
            touched = any(m.param in dead for m in term.site.members)
            if touched and term.site.op != "channels":
                h[term.site.name] = _without(term, weights, h.get(term.site.name), dead)
    if tightness >= 1.0:
        near = {k: w.masked_fill(dead[k], 0) if k in dead else w for k, w in near.items()}
    return levels, near


def _without(term: Term, weights: Weights, h: Tensor | None, dead: Mapping[str, Tensor]) -> Tensor:
    view = term.constraint.view
    mask = views.matrix(term.site, view, {m.param: dead[m.param] for m in term.site.members})
    if h is None:
        h = views.matrix(term.site, view, weights).new_ones(mask.shape)
    return h.masked_fill(mask, 0)


def as_level(value: Any) -> Level:
    """A level as JSON gives it back (lists become tuples again)."""
    return tuple(as_level(v) for v in value) if isinstance(value, list) else value


class Frozen:
    """The linear piece through feasible weights: what masked retraining moves in.

    Supports become one mask per parameter (a single multiplication); clusters and scales are projected by their
    `Piece`. `apply_` changes parameters in place, `mask_` gradients.
    `anchor` holds the weights the piece was taken at: frozen again from them, it is the same piece to the bit.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        levels: Levels,
        weights: Weights,
        companions: Callable[[Weights], Mapping[str, Tensor]] | None = None,
    ) -> None:
        import torch

        names = {m.param for t in terms for m in t.site.members}
        self.anchor = {n: w.detach().clone() for n, w in weights.items() if n in names}
        self.masks: dict[str, Tensor] = {}
        self.pieces: list[tuple[Term, Piece]] = []
        for term in terms:
            level = levels[term.site.name]
            if level is None:
                continue
            view = term.constraint.view
            w = views.matrix(term.site, view, weights)
            piece = term.constraint.freeze(w, level)
            if term.constraint.kind != "support":
                self.pieces.append((term, piece))
                continue
            kept = piece.project(torch.ones_like(w))
            for name, mask in views.write(term.site, view, weights, kept).items():
                same_strides = torch.empty_like(weights[name]).copy_(mask != 0)
                self.masks[name] = self.masks[name] * same_strides if name in self.masks else same_strides
        for name, kept in ({} if companions is None else companions(weights)).items():
            mask = torch.empty_like(weights[name]).copy_(kept)
            self.masks[name] = self.masks[name] * mask if name in self.masks else mask
        self._names = list(self.masks)
        self._values = list(self.masks.values())

    def mask_(self, tensors: Weights) -> None:
        """Zero outside the supports, in place. Gradients of tied weights are left apart on purpose: projected before
        an adaptive optimizer they would move a cluster of thousands by a whole step each time; projected after it
        (`apply_`) the cluster moves by the mean of its members' steps, in which their noise cancels.
        """
        import torch

        if self._names:
            torch._foreach_mul_([tensors[n] for n in self._names], self._values)

    def apply_(self, tensors: Weights) -> None:
        """Project the tensors (all names of the terms) onto the piece, in place."""
        self.mask_(tensors)
        for term, piece in self.pieces:
            self._put(term, piece.project(views.matrix(term.site, term.constraint.view, tensors)), tensors)

    def advance_(self, latent: Weights, member: Weights, moved: Weights, n: int) -> dict[str, Tensor]:
        """One straight-through step (`Piece.advance`): `latent` is changed in place, what the net shows is returned."""
        import torch

        before = {name: w.clone() for name, w in latent.items()}
        torch._foreach_add_(list(latent.values()), [moved[name] - member[name] for name in latent])
        shown = {name: w.clone() for name, w in latent.items()}
        done: set[str] = set()
        for term, piece in self.pieces:
            view, names = term.constraint.view, {m.param for m in term.site.members}
            if done.isdisjoint(names):
                was, at, now = (views.matrix(term.site, view, x) for x in (before, member, moved))
                after, near = piece.advance(was, at, now, n)
                self._put(term, after, latent)
            else:  # the step was made by an earlier term; this one only holds it
                near = piece.follow(views.matrix(term.site, view, shown))
            self._put(term, near, shown)
            done |= names
        self.mask_(shown)
        return shown

    @staticmethod
    def _put(term: Term, matrix: Tensor, tensors: Weights) -> None:
        for name, value in views.write(term.site, term.constraint.view, tensors, matrix).items():
            tensors[name].copy_(value)
