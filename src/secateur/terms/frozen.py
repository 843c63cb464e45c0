"""The linear piece of all sets through feasible weights, inside which retraining moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from secateur.contracts import Piece, Term
from secateur.terms import views
from secateur.terms.feasible import Levels
from secateur.types import Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor


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
            if term.constraint.stage != Stage.SUPPORT:
                self.pieces.append((term, term.constraint.freeze(w, level)))
                continue
            for name, mask in views.write(term.site, view, weights, term.constraint.mask(w, level)).items():
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
