"""Periods in which units that the budget has no room for are led to zero while all others train on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._state import State, gaps
from secateur.solvers._units import Units, refusal, units
from secateur.terms.feasible import Importance
from secateur.types import Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Periods:
    """Optimizer steps of a run: free until `start`, then `n` periods of `length` steps."""

    start: int
    n: int
    length: int

    @classmethod
    def over(cls, steps: int, start: float, end: float, n: int) -> Periods:
        """`n` periods, or as many as there are steps, between these shares of the steps; the first step is free."""
        return cls(0, n, 1).between(min(max(round(start * steps), 1), max(steps - 1, 0)), round(end * steps))

    @property
    def end(self) -> int:
        """The first step that belongs to no period any more."""
        return self.start + self.n * self.length

    def between(self, start: int, end: int) -> Periods:
        """As many periods, or as many as there are steps, between these steps."""
        left = max(end - start, 1)
        n = min(self.n, left)
        return Periods(start, n, left // n)

    def place(self, step: int) -> tuple[int, int]:
        """The period that a step belongs to, from 0, and its place there; before the first one -1."""
        inside = step - self.start
        return (-1, 0) if inside < 0 else (min(inside // self.length, self.n), inside % self.length)


@dataclass(frozen=True)
class Leads(Solver):
    """What solvers that lead units to zero share: when they do, the sets that they cannot act on, the answer.

    Args:
        start, end: shares of the steps between which the periods lie.
    """

    periods: int = 10
    start: float = 0.1
    end: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1 or self.periods < 1:
            raise UsageError(
                f"solver {self._name}: start={self.start}, end={self.end}, periods={self.periods}; "
                "0 <= start < end <= 1 and periods >= 1 needed"
            )

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def planned(self, problem: Problem) -> Periods:
        """The periods of a run."""
        return Periods.over(problem.total_steps, self.start, self.end, self.periods)

    def refuses(self, term: Term) -> str | None:
        """Sets that are no supports."""
        return refusal(term, f"{self._name} makes")

    def finish(self, state: Led) -> Solution:
        """The projection at the final levels."""
        state.land(1.0)
        return state.solution()


@dataclass
class Led(State):
    """Which weights go.

    Attributes:
        going: weights that are led to zero, bool per parameter.
        gone: those that have arrived and stay there.
        before: the weights before the optimizer's step.
    """

    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"periods", "unit_sets"}

    periods: Periods = field(kw_only=True)
    going: dict[str, Tensor] = field(default_factory=dict)
    gone: dict[str, Tensor] = field(default_factory=dict)
    unit_sets: tuple[Units, ...] = field(default=(), init=False)
    before: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unit_sets = units(self.problem)
        self.remember()

    @property
    def tightness(self) -> float:
        """Of the present period."""
        return min(self.periods.place(self.n)[0] + 1, self.periods.n) / self.periods.n

    def choose(self, importance: Importance | None = None) -> dict[str, Tensor]:
        """What goes in this period: all that the projection at its tightness drops. Answers that projection."""
        self.levels, near = self.project(self.tightness, importance=importance)
        self.residuals = gaps(self.live, near)
        self.going = {k: z == 0 for k, z in near.items()}
        return near

    def hold(self) -> None:
        """What is gone stays gone."""
        live = self.live
        for k, gone in self.gone.items():
            live[k].masked_fill_(gone, 0.0)

    def remember(self) -> None:
        """The weights as they are before the next step of the optimizer."""
        names = {m.param for u in self.unit_sets for m in u.site.members}
        self.before = {k: w.clone() for k, w in self.live.items() if k in names}

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The projection of `weights` at today's tightness."""
        return {k: w.clone() for k, w in {**weights, **self.project(self.tightness, weights)[1]}.items()}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, object]) -> None:
        super().load_state_dict(tensors, facts)
        self.remember()
