"""SET: sparse all the way; the weights nearest to zero give way to random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._regrow import Support, not_free, period
from secateur.types import Solution, Weights


@dataclass(frozen=True)
class SET(Solver):
    """Positive and negative weights nearest to zero give way to weights at random places; levels stay.

    It starts inside the sets, and the number of weights is constant. At every update `part` of the weights of each
    sign goes. As many come, at places drawn among all that are empty then, with values of a normal distribution
    `noise` times as wide as what stayed is large, and without momentum. Units of a set go by their sums of squares,
    each weight counted in units of the limit of its sign. The last period has no update. The budget chooses the levels,
    not Erdos-Renyi densities.

    Args:
        every: steps between two updates (an epoch in the paper); None: 100, and fewer where that would be less than
            ten updates.
        part: of a site's weights that an update exchanges.
        noise: root mean square of new weights over that of old ones.
    Reference: Mocanu et al., Nature Communications 9, 2018, arXiv:1707.04780.
    """

    every: int | None = None
    part: float = 0.3
    noise: float = 0.1
    by_chance: ClassVar[bool] = True
    reference: ClassVar[str] = "Mocanu et al., SET, Nature Communications 2018, arXiv:1707.04780"

    def __post_init__(self) -> None:
        if (self.every is not None and self.every < 1) or not 0 <= self.part < 1 or self.noise < 0:
            raise UsageError(
                f"solver set: every={self.every}, part={self.part}, noise={self.noise}; every >= 1, 0 <= part < 1 and "
                "noise >= 0 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """What is no support, and coupled channels."""
        return not_free("set", term)

    def init(self, problem: Problem) -> Support:
        """Inside the sets at once: of a net that is not trained a support that is as good as random."""
        state = Support(problem)
        state.land(1.0)
        return state

    def before_step(self, state: Support) -> None:
        """No gradient outside the support."""
        state.shade()

    def step(self, state: Support) -> Support:
        """Back into the support; exchange when it is time."""
        state.advance()
        state.hold()
        every = period(self.every, state.problem.total_steps)
        if self.part > 0 and state.n % every == 0 and state.n + every <= state.problem.total_steps:
            draws = torch.Generator().manual_seed(state.problem.seed * 1_000_003 + state.n)
            held = state.held()
            strengths = {k: _in_units(w, held[k], self.part) for k, w in state.live.items() if k in held}
            chance = {k: torch.rand(w.shape, generator=draws).to(w.device) for k, w in strengths.items()}
            stayed = state.swap(strengths, self.part, chance)
            state.show(self._new(state, stayed, draws))
        return state

    def finish(self, state: Support) -> Solution:
        """The weights as they are: they are members already."""
        return state.solution()

    def _new(self, state: Support, stayed: Weights, draws: torch.Generator) -> dict[str, Tensor]:
        """The live weights, with what came since drawn anew."""
        live, held, out = state.live, state.held(), {}
        for k, old in stayed.items():
            size = float(live[k][old].square().mean().sqrt()) if bool(old.any()) else 0.0
            drawn = torch.randn(live[k].shape, generator=draws).to(live[k])
            out[k] = live[k].where(old | ~held[k], drawn * (self.noise * size))
        return out


def _in_units(w: Tensor, held: Tensor, part: float) -> Tensor:
    """|w| over the limit below which `part` of its sign lies."""
    out = w.abs()
    for sign in (w > 0, w < 0):
        sizes = w[held & sign].abs().sort().values
        if len(sizes):
            out = out.where(~sign, out / sizes[min(int(part * len(sizes)), len(sizes) - 1)])
    return out
