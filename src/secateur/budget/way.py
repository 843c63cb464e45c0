"""The way of a net to its budget: what tightness 0..1 means, from what it cost where the way began to the limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from secateur.budget import kinds
from secateur.budget.menus import cost, packed
from secateur.contracts import Term
from secateur.terms import views
from secateur.types import Limit, Packing, Stage, Weights


@dataclass
class Way:
    """Where a solver's leg lies, and where the whole way began.

    Attributes:
        low, high: the part of the way that tightness 0..1 means now (a solver's leg).
        begin: what the free sites cost under the first limit where the way began (`set_out`); None = what they cost
            dense. It stays when the net is cut on the way, so that the way is the one that was begun.
    """

    low: float = 0.0
    high: float = 1.0
    begin: float | None = None

    def at(self, tightness: float) -> float:
        """The place on the whole way."""
        return self.low + (self.high - self.low) * tightness

    def set_out(self, terms: Iterable[Term], limit: Limit | None, weights: Weights) -> None:
        """Begin at what these weights hold: a ramp from dense would do nothing until it gets there."""
        dense, held = free_cost(terms, limit, weights), free_cost(terms, limit, weights, held=True)
        self.begin = held if held != dense else None

    def tightness(
        self, terms: Iterable[Term], limit: Limit | None, fixed: Mapping[str, float], weights: Weights, given: float
    ) -> float:
        """The place on the whole way as the allocator takes it: between this net's own dense cost and the limit."""
        t = self.at(given)
        if self.begin is None or limit is None or not 0 < t < 1:
            return t
        meter = kinds.meter(limit.kind)
        now, target = free_cost(terms, limit, weights), limit.value - fixed.get(limit.kind, 0.0)
        for term in terms:
            if term.given:
                shape = views.shape(term.site, term.constraint.view, weights)
                target -= cost(meter, term.site, packed(term.constraint, shape, term.level))
        if now is None or not 0 < target < now:
            return t
        budget = max(self.begin, target) ** (1 - t) * target**t
        return min(max(math.log(now / budget) / math.log(now / target), 1e-6), 1.0)


def free_cost(terms: Iterable[Term], limit: Limit | None, weights: Weights, held: bool = False) -> float | None:
    """What the sites without a given level cost dense, by the kind of the limit; None without one.

    Args:
        held: count the nonzeros that are there now, where the site's set may keep any number of weights.
    """
    if limit is None:
        return None
    meter, total = kinds.meter(limit.kind), 0.0
    for t in terms:
        if not t.given:
            matrix = views.matrix(t.site, t.constraint.view, weights)
            n = nnz = matrix.numel()
            if held and _any_number(t, (matrix.shape[0], matrix.shape[1])):
                nnz = int(matrix.count_nonzero())
            total += cost(meter, t.site, (Packing(n, nnz),))
    return total


def _any_number(term: Term, shape: tuple[int, int]) -> bool:
    """Does the support part of the term's set offer every count of kept weights?"""
    supports = [part for part, _ in term.constraint.split(None) if part.stage == Stage.SUPPORT]
    return [part.levels(shape) for part in supports] == [range(shape[0] * shape[1] + 1)]
