"""SR-STE: the net shows pruned weights, the steps go to dense ones, and what is pruned decays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from secateur.contracts import Solver
from secateur.errors import UsageError
from secateur.problem import Problem
from secateur.solvers._state import State
from secateur.terms.feasible import project
from secateur.types import Solution


@dataclass(frozen=True)
class SrSte(Solver):
    """W <- W - lr (g(E W) + decay (1 - E) W), where E is the support of Proj(W), taken anew at every step.

    A pruned weight follows the gradient too and may come back; meanwhile it decays, so that the support settles. For
    N:M and any other set of supports. Levels are the final ones from the start; those that a budget chooses are chosen
    anew every `every` steps. The decay is in the gradient, as momentum and Adam see it; 0 is straight-through alone.
    """

    decay: float = 2e-4
    every: int = 100
    reference: ClassVar[str] = "Zhou et al., ICLR 2021, arXiv:2102.04010"

    def __post_init__(self) -> None:
        if self.decay < 0 or self.every < 1:
            raise UsageError(f"solver sr_ste: decay={self.decay}, every={self.every}; decay >= 0, every >= 1 needed")

    def init(self, problem: Problem) -> _State:
        """W are the live weights, which become E W."""
        state = _State(problem, latent={k: p.detach().clone() for k, p in problem.params.items()})
        state.levels = state.project(1.0)[0]
        return state.shown()

    def penalty(self, state: _State) -> Tensor | float:
        """decay <(1 - E) W, E W>: zero, with the decay as its gradient."""
        held, p = state.candidate(state.latent), state.problem.params
        return self.decay * sum((((w - held[k]) * p[k]).sum() for k, w in state.latent.items()), 0.0)

    def step(self, state: _State) -> _State:
        """The latent weights make the step of the optimizer; then comes the new support."""
        state.advance()
        held = state.candidate(state.latent)
        state.latent = {k: w + (state.live[k] - held[k]) for k, w in state.latent.items()}
        if state.n % self.every == 0:
            state.levels = state.project(1.0, state.latent)[0]
        return state.shown()

    def finish(self, state: _State) -> Solution:
        """E W at the final levels."""
        state.land(1.0, state.latent)
        return state.solution()


@dataclass
class _State(State):
    latent: dict[str, Tensor] = field(default_factory=dict)

    def shown(self) -> _State:
        p, w = self.problem, self.latent
        self.freeze({**w, **project(p.terms, self.levels, w, p.importance())})
        self.show(self.candidate(w))
        return self

    def tracked(self) -> dict[str, Tensor]:
        return self.latent
