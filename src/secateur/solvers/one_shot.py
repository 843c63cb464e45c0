"""One-shot pruning: project once, then train inside the structure that is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers._at_once import AtOnce
from secateur.solvers._state import State
from secateur.types import Level, Solution, Stage


@dataclass(frozen=True)
class OneShot(AtOnce):
    """Projection at step 0, then masked retraining for the whole rest: the baseline that others must beat.

    Dead weights are dropped and their budget refilled before the structure is frozen (see `project_live`).

    Args:
        points: tightness values on the way, rising, each between 0 and 1: the answer carries the projections there too
            (`Solution.points`). Each starts from the one before, so that supports lie in one another. Retrained are the
            weights of the last; the others add to them, unchanged, what it leaves away. For who calls the solver: a run
            writes the answer alone.
    Reference: Han et al., NeurIPS 2015, arXiv:1506.02626 (one round of it).
    """

    points: tuple[float, ...] = ()
    reference: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626, one round"

    def __post_init__(self) -> None:
        if not all(a < b for a, b in pairwise((0.0, *self.points, 1.0))):
            raise UsageError(f"solver one_shot: points={self.points}; rising numbers between 0 and 1 are needed")

    def refuses(self, term: Term) -> str | None:
        """Sets whose supports at two levels need not lie in one another, where points are asked for."""
        support = term.constraint.before(Stage.VALUES, None)
        if not self.points or support is None or support[0].nests:
            return None
        return f"points of one_shot need a set whose supports nest, which those of {term.constraint.name} need not"

    def init(self, problem: Problem) -> State:
        """Project the live weights at the final levels, at once."""
        state = _State(problem)
        for tightness in self.points:
            state.land(tightness)
            state.remember()
        state.land(1.0)
        return state


@dataclass
class _State(State):
    """What the points hold beside the live weights.

    Attributes:
        outer: the parameters at the loosest point.
        depth: how many points, counted from there, hold each weight.
        passed: the levels at the points, per site.
    """

    outer: dict[str, Tensor] = field(default_factory=dict)
    depth: dict[str, Tensor] = field(default_factory=dict)
    passed: dict[str, tuple[Level, ...]] = field(default_factory=dict)

    def remember(self) -> None:
        """The live weights are a point."""
        self.outer = self.outer or {k: w.clone() for k, w in self.live.items()}
        self.depth = {k: self.depth.get(k, 0) + (w != 0).int() for k, w in self.live.items()}
        self.passed = {site: (*self.passed.get(site, ()), level) for site, level in self.levels.items()}

    def solution(self, outcome: str = "converged") -> Solution:
        """With the points: at each the live weights, and what it holds beside them."""
        found = []
        for i in range(max(map(len, self.passed.values()), default=0)):
            weights = {
                k: w.where(w != 0, self.outer[k].masked_fill(self.depth[k] <= i, 0)) for k, w in self.live.items()
            }
            found.append(Solution(weights, {site: levels[i] for site, levels in self.passed.items()}))
        return replace(super().solution(outcome), points=tuple(found))
