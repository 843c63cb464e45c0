"""The units of sets of supports as groups of weights: their norms, and a factor for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from secateur.contracts import Problem, Term
from secateur.terms import views
from secateur.types import Site, Stage, Weights

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-30  # of a squared norm


@dataclass(frozen=True, eq=False)
class Units:
    """What goes or stays together in one set of supports on one site.

    To a coupled channel belong its one-axis parameters too (the scale and shift of a norm, a bias): behind a norm the
    size of a row alone changes nothing that the net computes.

    Attributes:
        name: of the site, with the number of the set among those that act there.
        site: with these parameters among its members.
        of: int64 [rows, cols], the unit of each weight of `matrix`, 0..n-1.
    """

    name: str
    site: Site
    view: str
    of: Tensor
    n: int

    @property
    def whole(self) -> bool:
        """Are its units whole rows or whole columns, not parts of an output's weights?"""
        return bool((self.of == self.of[:, :1]).all() or (self.of == self.of[:1]).all())

    def matrix(self, params: Weights) -> Tensor:
        """The weights, [rows, cols] as the set sees them, with what belongs to channels beside."""
        return views.matrix(self.site, self.view, params)

    def sums(self, matrix: Tensor) -> Tensor:
        """The sum over each unit, [n]."""
        if self.n == matrix.numel():
            return matrix.flatten()
        return matrix.new_zeros(self.n).index_add(0, self.of.flatten(), matrix.flatten())

    def norms(self, params: Weights) -> Tensor:
        """The Euclidean norm of each unit, [n]; a little more than 0, so that one may divide by it."""
        return self.sums(self.matrix(params).square()).clamp_min(_TINY).sqrt()

    def kept(self, near: Weights) -> Tensor:
        """Which units the members `near` hold, bool [n].."""
        return self.sums((self.matrix(near) != 0).float()) > 0

    def scaled(self, params: Weights, factor: Tensor) -> dict[str, Tensor]:
        """The parameters with each unit times its factor, [n]; new tensors."""
        matrix = self.matrix(params)
        spread = factor.reshape(matrix.shape) if self.n == matrix.numel() else factor[self.of]
        return self.written(params, matrix * spread)

    def written(self, params: Weights, matrix: Tensor) -> dict[str, Tensor]:
        """The parameters when the matrix becomes this; new tensors."""
        return views.write(self.site, self.view, params, matrix)


def units(problem: Problem) -> tuple[Units, ...]:
    """Of every set of supports that acts on a weight; a joint set has several."""
    params, found = problem.params, []
    for term in problem.terms:
        for i, (part, _) in enumerate(term.constraint.split(None)):
            if part.stage != Stage.SUPPORT:
                continue
            view, site = term.constraint.view, _with_vectors(term.site, params)
            shape, whole = views.shape(term.site, view, params), views.shape(site, view, params)
            of = part.units_of(shape)
            of = torch.hstack([of, of[:, :1].expand(-1, whole[1] - shape[1])]).to(next(iter(params.values())).device)
            found.append(Units(f"{term.site.name}:{i}", site, view, of, int(of.max()) + 1 if of.numel() else 0))
    return tuple(found)


def refusal(term: Term, does: str) -> str | None:
    """Why a solver that works on units cannot act on a term; None: it can."""
    form = any(part.stage == Stage.FORM for part, _ in term.constraint.split(None))
    return f"{does} units of zeros, and {term.constraint.name} stores a weight as factors" if form else None


def _with_vectors(site: Site, params: Weights) -> Site:
    """A site of channels with the vectors that go with them among its members."""
    if site.op != "channels":
        return site
    beside = tuple(m for m in site.removes if m.param in params and params[m.param].dim() == 1)
    return replace(site, members=(*site.members, *beside))
