"""One-shot pruning: project once, then train inside the structure that is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.contracts import Problem, Solver
from secateur.terms.feasible import as_level
from secateur.terms.frozen import Frozen
from secateur.terms.live import project_live
from secateur.types import Level, Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OneShot(Solver):
    """Projection at step 0, then masked retraining for the whole rest: the baseline that others must beat.

    Dead weights are dropped and their budget refilled before the structure is frozen (see `project_live`).
    Reference: Han et al., NeurIPS 2015, arXiv:1506.02626 (one round of it).
    """

    instant: ClassVar[bool] = True
    reference: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626, one round"

    def init(self, problem: Problem) -> _State:
        """Project the live weights at the final levels, at once."""
        p, live = problem, {k: v.detach() for k, v in problem.params.items()}
        levels, near = project_live(p.terms, p.allocate, live, p.importance(), 1.0, p.effective, p.companions)
        for name, value in near.items():
            live[name].copy_(value)
        return _State(problem, levels)

    def step(self, state: _State) -> _State:
        """Back into the frozen structure after the optimizer's step."""
        state.n += 1
        state.frozen.apply_({k: p.data for k, p in state.problem.params.items()})
        return state

    def finish(self, state: _State) -> Solution:
        """The weights as they are: they are members already."""
        weights = {k: p.detach().clone() for k, p in state.problem.params.items()}
        return Solution(weights, dict(state.levels))


@dataclass
class _State:
    problem: Problem
    levels: dict[str, Level]
    n: int = 0
    round_changed: bool = False
    residuals: dict[str, float] = field(default_factory=dict)
    frozen: Frozen = field(init=False)

    def __post_init__(self) -> None:
        self._freeze({})

    @property
    def span(self) -> tuple[int, int]:
        """Start and length of the present learning-rate round."""
        return 0, self.problem.total_steps

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The weights inside the frozen structure."""
        out = {k: v.clone() for k, v in weights.items()}
        self.frozen.apply_(out)
        return out

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return dict(self.frozen.anchor), {"n": self.n, "levels": self.levels}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n = int(facts["n"])
        self.levels = {k: as_level(v) for k, v in facts["levels"].items()}
        self._freeze(tensors)

    def _freeze(self, anchor: dict[str, Tensor]) -> None:
        live = {k: p.detach() for k, p in self.problem.params.items()}
        self.frozen = Frozen(self.problem.terms, self.levels, {**live, **anchor}, self.problem.companions)
