"""The budget while the weights move: allocation in front, exact bytes of the written file behind.

The allocator prices tensors by estimates; the file also holds the graph, the biases and whatever dead units left.
`Spending` closes that loop: it writes the compressed network that today's weights would give (project, cut, export,
pack), and books the difference between file and estimate as the fixed part of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from secateur import feasible
from secateur.budget.allocate import Allocator, Plan
from secateur.errors import BudgetError
from secateur.types import Level, Limit, Term, Weights

if TYPE_CHECKING:
    from torch import Tensor

METERED = ("nbytes", "nnz", "macs")
_PROBE_AT = 0.8  # the file is measured once on the way, when most dead units are gone
_ROUNDS = 4
_FITS = 12
_MARGIN = 0.01  # kept free before the values are trained: their entropy moves by less than that


@dataclass
class Spending:
    """Answers levels for any tightness (`types.Allocate`) and learns what the file really costs.

    Attributes:
        terms: all terms, joint sets whole.
        limits: the limits that have a meter.
        nbytes_of: projected weights -> bytes of the `.sct` file they give; None = nothing is measured.
        fixed: what the file costs beyond the sites' estimates, as last measured.
    """

    terms: tuple[Term, ...]
    limits: tuple[Limit, ...]
    nbytes_of: Callable[[Weights], int] | None = None
    effective: Callable[[Weights], Mapping[str, Tensor]] | None = None
    fixed: dict[str, float] = field(default_factory=dict)
    probed: bool = False

    @property
    def asks_bytes(self) -> bool:
        """Is there a limit on the file's size?"""
        return any(x.kind == "nbytes" for x in self.limits)

    def allocator(self) -> Allocator:
        """Today's allocator."""
        return Allocator(self.terms, self.limits, dict(self.fixed))

    def levels(self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float) -> dict[str, Level]:
        """Full levels, joint sets whole."""
        return self.allocator()(weights, importance, tightness)

    def support_levels(
        self, weights: Weights, importance: Mapping[str, Tensor | None], tightness: float
    ) -> dict[str, Level]:
        """Levels of the support parts: the `allocate` of a solver's problem. Probes the file on the way."""
        if self.asks_bytes and not self.probed and tightness >= _PROBE_AT:
            self.probed = True
            self.probe(weights, importance)
        found = self.levels(weights, importance, tightness)
        terms, at = feasible.support_only(self.terms, found)
        return {t.site.name: at[t.site.name] for t in terms}

    def plan(self, weights: Weights, importance: Mapping[str, Tensor | None]) -> Plan:
        """What the budget buys now."""
        return self.allocator().predict(weights, importance)

    def probe(self, weights: Weights, importance: Mapping[str, Tensor | None], rounds: int = _ROUNDS) -> int | None:
        """Measure the file that one-shot projection of `weights` would give, and book its fixed part.

        The fixed part depends a little on the levels (units die with their weights), hence a few rounds.

        Returns:
            Bytes of the last file, or None when nothing is measured.
        Raises:
            BudgetError: with the size that the tightest levels really give.
        """
        if self.nbytes_of is None or not self.asks_bytes:
            return None
        nbytes = 0
        for _ in range(rounds):
            try:
                plan = self.plan(weights, importance)
            except BudgetError as e:
                self._face(e, weights, importance)
                continue
            nbytes = self._written(plan.levels, weights, importance)
            sites = next(expected for k, _, expected in plan.totals if k == "nbytes") - self.fixed.get("nbytes", 0.0)
            before, self.fixed["nbytes"] = self.fixed.get("nbytes", 0.0), nbytes - sites
            if abs(self.fixed["nbytes"] - before) <= 0.005 * nbytes:
                break
        return nbytes

    def fit(
        self,
        weights: Weights,
        importance: Mapping[str, Tensor | None],
        nbytes_at: Callable[[dict[str, Level]], int] | None = None,
    ) -> dict[str, Level]:
        """Final levels from today's weights, tightened until the written file meets the limit.

        Args:
            nbytes_at: levels -> bytes of the file they give now; None = the estimates are believed.
        Raises:
            BudgetError: with the smallest size that was reached.
        """
        limit, smallest = self.limit("nbytes"), math.inf
        for _ in range(_FITS):
            try:
                levels = self.levels(weights, importance, 1.0)
            except BudgetError as e:
                if smallest == math.inf:
                    raise
                raise self._missed(limit, smallest, e.site) from None
            if limit is None or nbytes_at is None:
                return levels
            nbytes = nbytes_at(levels)
            over = nbytes - limit * (1 - _MARGIN)
            if over <= 0:
                return levels
            smallest = min(smallest, nbytes)
            self.fixed["nbytes"] = self.fixed.get("nbytes", 0.0) + 1.05 * over
        raise self._missed(limit, smallest, None)

    def check(self, sizes: Mapping[str, float]) -> None:
        """Raise BudgetError when a finished answer misses a metered limit."""
        for limit in self.limits:
            if sizes[limit.kind] > limit.value:
                raise BudgetError(
                    f"budget: {limit.kind} <= {limit.value:g} was missed: {sizes[limit.kind]:g}; raise the budget or "
                    "constrain more",
                    sizes[limit.kind],
                )

    def _missed(self, limit: float | None, smallest: float, site: str | None) -> BudgetError:
        return BudgetError(
            f"budget: nbytes <= {limit:g} cannot be met: the file stays at {smallest:g} bytes however far the levels "
            f"are lowered{'' if site is None else f', and {site} holds the largest part'}; raise the budget, "
            "constrain more layers or give stronger constraints",
            smallest,
            site,
        )

    def expected_nbytes(self, levels: Mapping[str, Level], weights: Weights) -> float:
        """What the sites cost at these levels by the estimates, without the fixed part."""
        held = tuple(replace(t, level=levels[t.site.name], given=True) for t in self.terms)
        plan = Allocator(held, (Limit("nbytes", math.inf),)).predict(weights)
        return plan.totals[0][2]

    def limit(self, kind: str) -> float | None:
        """The limit of that kind, or None."""
        return next((x.value for x in self.limits if x.kind == kind), None)

    def _written(self, levels: Mapping[str, Level], weights: Weights, importance: Mapping[str, Tensor | None]) -> int:
        assert self.nbytes_of is not None
        _, near = feasible.project_live(
            self.terms, lambda w, h, t: dict(levels), weights, importance, 1.0, self.effective
        )
        return self.nbytes_of(near)

    def _face(self, error: BudgetError, weights: Weights, importance: Mapping[str, Tensor | None]) -> None:
        """The estimates refuse the limit: write the smallest file, then refuse with its size or correct them."""
        limit = self.limit("nbytes")
        if error.smallest is None or limit is None or error.smallest <= limit:
            raise error
        fixed = self.fixed.get("nbytes", 0.0)
        loosest = Allocator(self.terms, (Limit("nbytes", error.smallest * 1.0001 + 1),), dict(self.fixed))
        smallest = self._written(loosest(weights, importance, 1.0), weights, importance)
        if smallest > limit:
            raise BudgetError(
                f"budget: nbytes <= {limit:g} cannot be met; the smallest file that these constraints give is about "
                f"{smallest} bytes, and {error.site} holds the largest part; raise the budget, constrain more layers "
                "(biases too: where: '*.bias') or give stronger constraints",
                smallest,
                error.site,
            )
        self.fixed["nbytes"] = smallest - (error.smallest - fixed)

    # ---- resume ------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """JSON for an exact resume."""
        return {"fixed": dict(self.fixed), "probed": self.probed}

    def load(self, state: Mapping[str, Any]) -> None:
        """Exactly as `state` gave it."""
        self.fixed, self.probed = dict(state["fixed"]), bool(state["probed"])


def metered(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits that a meter can price (accuracy_drop is judged, not priced)."""
    return tuple(x for x in limits if x.kind in METERED)
