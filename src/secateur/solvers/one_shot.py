"""One-shot pruning: project once, then train inside the structure that is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Problem
from secateur.solvers._at_once import AtOnce
from secateur.solvers._state import State


@dataclass(frozen=True)
class OneShot(AtOnce):
    """Projection at step 0, then masked retraining for the whole rest: the baseline that others must beat.

    Dead weights are dropped and their budget refilled before the structure is frozen (see `project_live`).
    Reference: Han et al., NeurIPS 2015, arXiv:1506.02626 (one round of it).
    """

    reference: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626, one round"

    def init(self, problem: Problem) -> State:
        """Project the live weights at the final levels, at once."""
        state = State(problem)
        state.land(1.0)
        return state
