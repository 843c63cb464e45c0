"""Solvers that land on the sets in `init`: what is left to do is to stay there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Solver
from secateur.solvers._state import State
from secateur.types import Solution


@dataclass(frozen=True)
class AtOnce(Solver):
    """`init` is the whole approach; masked retraining follows."""

    instant: ClassVar[bool] = True

    def step(self, state: State) -> State:
        """Back into the frozen structure after the optimizer's step."""
        state.advance()
        state.hold()
        return state

    def finish(self, state: State) -> Solution:
        """The weights as they are: they are members already."""
        return state.solution()
