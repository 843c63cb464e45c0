"""One-shot pruning: project once, then train inside the structure that is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Problem, Solver
from secateur.solvers._state import State
from secateur.types import Solution


@dataclass(frozen=True)
class OneShot(Solver):
    """Projection at step 0, then masked retraining for the whole rest: the baseline that others must beat.

    Dead weights are dropped and their budget refilled before the structure is frozen (see `project_live`).
    Reference: Han et al., NeurIPS 2015, arXiv:1506.02626 (one round of it).
    """

    instant: ClassVar[bool] = True
    reference: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626, one round"

    def init(self, problem: Problem) -> State:
        """Project the live weights at the final levels, at once."""
        state = State(problem)
        state.land(1.0)
        return state

    def step(self, state: State) -> State:
        """Back into the frozen structure after the optimizer's step."""
        state.advance()
        state.hold()
        return state

    def finish(self, state: State) -> Solution:
        """The weights as they are: they are members already."""
        return state.solution()
