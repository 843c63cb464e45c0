"""Gradual pruning: a little tighter every few steps, training in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from secateur import schedules
from secateur.contracts import Problem, Solver
from secateur.errors import UsageError
from secateur.solvers._stages import check, plan
from secateur.solvers._state import State
from secateur.types import Solution

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

    def init(self, problem: Problem) -> State:
        """Nothing is pruned yet."""
        return State(problem, plan(self.stages, self.shares, problem.total_steps))

    def step(self, state: State) -> State:
        """Prune when it is time, else hold the structure."""
        state.advance()
        stage = state.stage
        inside = state.n - stage.start
        # The last pruning of a stage comes at the end of its ramp, or at the stage's last step when it is shorter.
        end = max(min(round(self.ramp * stage.length), stage.length - 1), 1)
        every = self.every or max(min(_EVERY, end // _PRUNINGS), 1)
        if inside <= end and (inside % every == 0 or inside == end) and inside > 0:
            share = schedules.get(self.schedule)(inside / end)
            state.land(stage.low + (stage.high - stage.low) * share)
        else:
            state.hold()
        return state

    def finish(self, state: State) -> Solution:
        """Project at the final levels (already there unless the run was cut short)."""
        state.land(1.0)
        return state.solution()
