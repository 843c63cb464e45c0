"""SR-STE: the net shows pruned weights, the steps go to dense ones, and what is pruned decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.contracts import Problem, Solver
from secateur.errors import UsageError
from secateur.solvers._straight import Latent
from secateur.terms.feasible import project
from secateur.types import Solution

_MEMORY = 50  # steps that the meter of supports is averaged over


@dataclass(frozen=True)
class SrSte(Solver):
    """W <- W - lr (g(E W) + decay (1 - E) W), where E is the support of Proj(W), taken anew at every step.

    A pruned weight follows the gradient too and may come back; meanwhile it decays, so that the support settles. For
    N:M and any other set of supports. Levels are the final ones from the start; those that a budget chooses are chosen
    anew every `every` steps. The decay is in the gradient, as momentum and Adam see it; 0 is straight-through alone.
    The curves hold `sad`, the share of weights that come or go in a step: it falls where the support settles.

    Reference: Zhou et al., ICLR 2021, arXiv:2102.04010, sec. 3 and 4 (SAD).
    """

    decay: float = 2e-4
    every: int = 100
    reference: ClassVar[str] = "Zhou et al., ICLR 2021, arXiv:2102.04010"

    def __post_init__(self) -> None:
        if self.decay < 0 or self.every < 1:
            raise UsageError(f"solver sr_ste: decay={self.decay}, every={self.every}; decay >= 0, every >= 1 needed")

    def init(self, problem: Problem) -> Latent:
        """W are the live weights, which become E W."""
        state = Latent(problem)
        state.levels = state.project(1.0)[0]
        return _shown(state)

    def penalty(self, state: Latent) -> Tensor | float:
        """decay <(1 - E) W, E W>: zero, with the decay as its gradient."""
        return state.pull(self.decay)

    def step(self, state: Latent) -> Latent:
        """The latent weights make the step of the optimizer; then comes the new support."""
        state.advance()
        state.follow()
        if state.n % self.every == 0:
            state.levels = state.project(1.0, state.latent)[0]
        return _shown(state)

    def finish(self, state: Latent) -> Solution:
        """E W at the final levels."""
        state.land(1.0, state.latent)
        return state.solution()


def _shown(state: Latent) -> Latent:
    """With the support of W at today's levels."""
    p, w = state.problem, state.latent
    state.shown(project(p.terms, state.levels, w, p.importance()), _MEMORY)
    return state
