"""RigL: sparse all the way; the smallest weights give way to those that the gradient asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._regrow import Support, not_free, period
from secateur.types import Solution


@dataclass(frozen=True)
class RigL(Solver):
    """At every update the smallest |w| give way to the largest |gradient| at places that are zero; levels stay.

    It starts inside the sets, and the number of weights is constant from the first step to the last. The part that
    gives way falls along half a cosine, part/2 (1 + cos(pi n / end)), from `part` to 0 at the end = `until` of the
    steps. A weight that comes is zero and has no momentum; one that goes and comes in the same update keeps its value.
    Units of a set go by their sums of squares. Unlike in the paper the gradient is a running mean, the optimizer makes
    its step at an update too, and the budget chooses the levels, not Erdos-Renyi-kernel densities.

    Args:
        every: steps between two updates; None: 100, and fewer where that would be less than ten updates.
        part: of a site's weights that the first update exchanges.
        until: share of the steps after which the support stays.
        memory: steps over which the gradient is averaged; 1 is the update's own batch, as in the paper, whose batches
            are 4096. Of batches of 64 one says little: digits, from scratch, 95 % zeros, 60 epochs, mean of two seeds
            93.6 % accuracy with 1, 95.4 % with 20, 95.9 % where nothing is exchanged.
    Reference: Evci et al., ICML 2020, arXiv:1911.11134, sec. 3.
    """

    every: int | None = None
    part: float = 0.3
    until: float = 0.75
    memory: int = 20
    reference: ClassVar[str] = "Evci et al., RigL, ICML 2020, arXiv:1911.11134"

    def __post_init__(self) -> None:
        counted = (self.every is None or self.every >= 1) and self.memory >= 1
        if not counted or not 0 <= self.part < 1 or not 0 < self.until <= 1:
            raise UsageError(
                f"solver {type(self).__name__.lower()}: every={self.every}, part={self.part}, until={self.until}, "
                f"memory={self.memory}; every and memory >= 1, 0 <= part < 1 and 0 < until <= 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """What is no support, and coupled channels."""
        return not_free(type(self).__name__.lower(), term)

    def init(self, problem: Problem) -> Support:
        """Inside the sets at once: of a net that is not trained a support that is as good as random."""
        state = Support(problem)
        state.land(1.0)
        return state

    def before_step(self, state: Support) -> None:
        """No gradient outside the support; what it was there is remembered."""
        state.shade(self.memory)

    def step(self, state: Support) -> Support:
        """Back into the support; exchange when it is time."""
        state.advance()
        state.hold()
        part = self._part(state.problem, state.n)
        if part > 0 and state.gradients:
            sizes = {k: w.abs() for k, w in state.live.items()}
            state.swap(sizes, part, {k: g.abs() for k, g in state.gradients.items()})
        return state

    def finish(self, state: Support) -> Solution:
        """The weights as they are: they are members already."""
        return state.solution()

    def _part(self, problem: Problem, n: int) -> float:
        """What the update after step `n` exchanges; 0 where none comes."""
        end = self.until * problem.total_steps
        if n > end or n % period(self.every, end):
            return 0.0
        return self.part / 2 * (1 + math.cos(math.pi * n / end))
