"""Gradual pruning: a little tighter every few steps, training in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from secateur import schedules
from secateur.contracts import Problem, Solver
from secateur.errors import UsageError
from secateur.solvers._stages import Stage, check, plan
from secateur.terms.feasible import as_level
from secateur.terms.frozen import Frozen
from secateur.terms.live import project_live
from secateur.types import Level, Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor

_EVERY, _PRUNINGS = 40, 10


@dataclass(frozen=True)
class Gradual(Solver):
    """Tightness rises along `schedule` in the first `ramp` of each stage; what was pruned stays pruned.

    Every `every` steps the levels for today's tightness are allocated from today's weights and importance, and the
    weights are set to their projection; between two prunings the structure is held. With a global budget the limit
    goes geometrically from dense to target: K0^(1-t) K^t with t = schedule(progress).

    Args:
        every: optimizer steps between two prunings; None = 40, and fewer where a ramp would hold less than ten
            prunings: one from dense to a tenth of the weights left a MobileNetV2-style net at chance.
        ramp: fraction of each stage in which the tightness moves; the rest trains at the stage's level.
        schedule: name of a schedule (`cubic`: 1 - (1 - t)^3).
        stages: count of equal tightness increments, or the tightness at the end of each stage. A stage restarts the
            learning rate.
        shares: relative length of each stage; empty = equal.
    Reference: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1.
    """

    every: int | None = None
    ramp: float = 0.5
    schedule: str = "cubic"
    stages: int | tuple[float, ...] = 1
    shares: tuple[float, ...] = ()
    reference: ClassVar[str] = "Zhu & Gupta 2017, arXiv:1710.01878"

    def __post_init__(self) -> None:
        if (self.every is not None and self.every < 1) or not 0 < self.ramp <= 1:
            raise UsageError(
                f"solver gradual: every={self.every}, ramp={self.ramp}; every >= 1 and 0 < ramp <= 1 needed"
            )
        schedules.get(self.schedule)
        check(self.stages, self.shares)

    def legs(self) -> tuple[tuple[Solver, float, float, float], ...]:
        """One leg per stage: a stage restarts the learning rate anyway."""
        stages = plan(self.stages, self.shares, 1 << 20)
        alone = replace(self, stages=1, shares=())
        return tuple((alone, s.length / (1 << 20), s.low, s.high) for s in stages)

    def init(self, problem: Problem) -> _State:
        """Nothing is pruned yet."""
        return _State(self, problem, plan(self.stages, self.shares, problem.total_steps))

    def step(self, state: _State) -> _State:
        """Prune when it is time, else hold the structure."""
        state.n += 1
        stage = state.stage
        state.round_changed = state.n == stage.start and state.n > 0
        inside = state.n - stage.start
        # The last pruning of a stage comes at the end of its ramp, or at the stage's last step when it is shorter.
        end = max(min(round(self.ramp * stage.length), stage.length - 1), 1)
        every = self.every or max(min(_EVERY, end // _PRUNINGS), 1)
        if inside <= end and (inside % every == 0 or inside == end) and inside > 0:
            share = schedules.get(self.schedule)(inside / end)
            state.prune(stage.low + (stage.high - stage.low) * share)
        elif state.frozen is not None:
            state.frozen.apply_(state.live())
        return state

    def finish(self, state: _State) -> Solution:
        """Project at the final levels (already there unless the run was cut short)."""
        state.prune(1.0)
        weights = {k: p.detach().clone() for k, p in state.problem.params.items()}
        return Solution(weights, dict(state.levels), residuals=state.residuals)


@dataclass
class _State:
    solver: Gradual
    problem: Problem
    plan: tuple[Stage, ...]
    n: int = 0
    round_changed: bool = False
    tightness: float = 0.0
    levels: dict[str, Level] = field(default_factory=dict)
    residuals: dict[str, float] = field(default_factory=dict)
    frozen: Frozen | None = None

    @property
    def stage(self) -> Stage:
        """The stage that step n belongs to."""
        return next((s for s in self.plan if self.n < s.start + s.length), self.plan[-1])

    @property
    def span(self) -> tuple[int, int]:
        """Start and length of the present learning-rate round."""
        return self.stage.start, self.stage.length

    def live(self) -> dict[str, Tensor]:
        return {k: p.data for k, p in self.problem.params.items()}

    def prune(self, tightness: float) -> None:
        p, weights = self.problem, self.live()
        levels, near = project_live(p.terms, p.allocate, weights, p.importance(), tightness, p.effective, p.companions)
        self.levels, self.tightness = levels, tightness
        for name, value in near.items():
            gap, norm = float((weights[name] - value).norm()), float(weights[name].norm())
            self.residuals[name] = gap / norm if norm else 0.0
            weights[name].copy_(value)
        self.frozen = Frozen(p.terms, levels, weights, p.companions)

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The weights inside the structure of today."""
        out = {k: v.clone() for k, v in weights.items()}
        if self.frozen is not None:
            self.frozen.apply_(out)
        return out

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return dict(self.frozen.anchor) if self.frozen else {}, {
            "n": self.n,
            "tightness": self.tightness,
            "levels": self.levels,
            "residuals": self.residuals,
            "frozen": self.frozen is not None,
        }

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n, self.tightness = int(facts["n"]), float(facts["tightness"])
        self.levels = {k: as_level(v) for k, v in facts["levels"].items()}
        self.residuals = dict(facts["residuals"])
        self.frozen = self._refrozen(tensors) if facts["frozen"] else None

    def _refrozen(self, anchor: dict[str, Tensor]) -> Frozen:
        p = self.problem
        return Frozen(p.terms, self.levels, {**self.live(), **anchor}, p.companions)
