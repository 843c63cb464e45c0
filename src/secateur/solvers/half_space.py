"""Half-space steps: a unit that is to go is pushed towards zero, and is zero once a step leaves its half-space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem
from secateur.errors import UsageError
from secateur.solvers._periods import Leads, Led
from secateur.solvers._units import Units


@dataclass(frozen=True)
class HalfSpace(Leads):
    """x' = x - d - lambda x / |x| for every unit x that goes, d the optimizer's step; x' = 0 if <x', x> < eps |x|^2.

    Of `periods` periods, each takes as going what the projection at its tightness drops (the dual variant: the budget
    says how many, and the others train without a penalty). lambda is |x| at the period's start over its steps, so that
    a unit arrives in time where the loss is quiet; where the optimizer lets it grow by g, lambda is `amplify` g if
    that is more, up to `most` times the quiet one. (The paper also bounds lambda so that the whole step descends; a
    push that must arrive in some hundred steps is beyond that bound.) A coupled channel is a unit with its norm's scale
    and shift, so that zero means that nothing is sent. What is not zero in the end is projected.

    Args:
        start, end: shares of the steps between which the periods lie.
        eps: 0 <= eps < 1; larger: units jump to zero earlier.
        most: lambda at most, in units of the quiet one.
    Reference: Chen et al., OTO, NeurIPS 2021, arXiv:2107.07467, sec. 3.2; OTOv2 (DHSPG), ICLR 2023, arXiv:2303.06862.
    """

    periods: int = 5
    end: float = 0.8
    eps: float = 0.0
    amplify: float = 2.0
    most: float = 10.0
    reference: ClassVar[str] = "Chen et al., OTO, arXiv:2107.07467; OTOv2, arXiv:2303.06862"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eps < 1 or self.amplify < 1 or self.most < 1:
            raise UsageError(
                f"solver half_space: eps={self.eps}, amplify={self.amplify}, most={self.most}; 0 <= eps < 1, "
                "amplify >= 1 and most >= 1 needed"
            )

    def init(self, problem: Problem) -> _State:
        """Nothing goes yet."""
        return _State(problem, periods=self.planned(problem))

    def step(self, state: _State) -> _State:
        """The push and the test, after the optimizer's step."""
        state.hold()
        period, inside = state.periods.place(state.n)
        if inside == 0 and 0 <= period < state.periods.n:
            near = state.choose()
            state.begin({**state.before, **near})
        for u in state.unit_sets if state.going else ():
            self.push(state, u)
        live = state.live
        state.gone = {k: going & (live[k] == 0) for k, going in state.going.items()}
        state.advance()
        state.remember()
        return state

    def push(self, state: _State, u: Units) -> None:
        """One set of units: towards zero, and to zero where the half-space is left."""
        before, after = u.matrix(state.before), u.matrix(state.live)
        size = u.norms(state.before)
        grows = -u.sums(before * (before - after)) / size  # along x
        quiet = state.quiet[u.name]
        force = torch.minimum((self.amplify * grows).maximum(quiet), self.most * quiet)
        pushed = after - (force / size)[u.of] * before
        left = (u.sums(pushed * before) < self.eps * size.square()) & (quiet > 0)
        state.show(u.written(state.live, pushed.masked_fill(left[u.of], 0.0)))


@dataclass
class _State(Led):
    """`quiet` is lambda where the loss is quiet, [units] of each set; 0: the unit stays."""

    quiet: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, near: dict[str, Tensor]) -> None:
        """A period in which all goes that `near` does not hold."""
        for u in self.unit_sets:
            self.quiet[u.name] = u.norms(self.before).masked_fill(u.kept(near), 0.0) / self.periods.length

    def numbers(self) -> dict[str, float]:
        """With the share of what goes that has arrived."""
        going = sum(int(m.sum()) for m in self.going.values())
        return {**super().numbers(), "arrived": sum(int(m.sum()) for m in self.gone.values()) / max(going, 1)}
