"""MaskSparsity: the channels that will go are chosen first, then only their norms' scales and shifts are penalised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._state import State, gaps
from secateur.types import Site, Solution, Weights


@dataclass(frozen=True)
class MaskSparsity(Solver):
    """min f(W) + sum of s (|gamma| + |beta|) over the channels that the projection under the budget drops.

    They are chosen once, after `start` of the steps; nothing pulls at the others, which an L1 on all scales shrinks
    too. The penalty is its exact proximal step after the optimizer's, so that scales reach zero and stay without a
    jitter. The shift goes along, for relu(beta) is still sent where gamma is 0. s is such that the largest scale or
    shift among them is zero after the rest of the steps over `strength`, where the loss does not object: until then
    the net leans on what goes, and has the rest of the steps to learn without it. Then removal changes nothing. For
    sets of whole channels behind norms alone.

    Reference: Jiang et al., MaskSparsity, arXiv:2201.06776.
    """

    start: float = 0.05
    strength: float = 10.0
    reference: ClassVar[str] = "Jiang et al., MaskSparsity, arXiv:2201.06776"

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1 or self.strength <= 0:
            raise UsageError(
                f"solver mask_sparsity: start={self.start}, strength={self.strength}; 0 <= start < 1 and strength > 0 "
                "needed"
            )

    def refuses(self, term: Term) -> str | None:
        """What is no coupled channel behind a norm."""
        if term.site.op == "channels" and _scales(term.site):
            return None
        return "mask_sparsity pulls at the scales of norms and needs channels with one behind them (rows, inputs)"

    def init(self, problem: Problem) -> _State:
        """Nothing is chosen yet."""
        return _State(problem)

    def step(self, state: _State) -> _State:
        """The proximal step of the scales that go."""
        total = state.problem.total_steps
        if not state.pull and state.n >= min(round(self.start * total), total - 1):
            state.choose(self.strength, total)
        live = state.live
        for k, s in state.pull.items():
            shrunk = live[k].sign() * (live[k].abs() - s).clamp(min=0)
            live[k].copy_(shrunk.where(state.going[k], live[k]))
        state.advance()
        return state

    def finish(self, state: _State) -> Solution:
        """The projection at the final levels, with what was chosen first."""
        live = state.live
        for k, going in state.going.items():
            live[k].masked_fill_(going, 0.0)
        state.land(1.0)
        return state.solution()


@dataclass
class _State(State):
    """What goes, bool per parameter; the step of each pulled vector."""

    going: dict[str, Tensor] = field(default_factory=dict)
    pull: dict[str, float] = field(default_factory=dict)

    def choose(self, strength: float, total: int) -> None:
        """The channels that the budget has no room for."""
        live = self.live
        self.levels, near = self.project(1.0)
        self.residuals = gaps(live, near)
        self.going = {k: z == 0 for k, z in near.items()}
        names = {m.param for t in self.problem.terms for m in t.site.removes}
        for k in (k for k in near if k in names and live[k].dim() == 1):
            size = float(live[k].abs().where(self.going[k], live[k].new_zeros(())).max())
            self.pull[k] = strength * size / max(total - self.n, 1)

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """`weights` without what goes; before it is chosen, their projection."""
        if not self.going:
            return {k: w.clone() for k, w in {**weights, **self.project(1.0, weights)[1]}.items()}
        return {k: w.masked_fill(self.going[k], 0.0) if k in self.going else w.clone() for k, w in weights.items()}


def _scales(site: Site) -> list[str]:
    """The scales among what is removed with a channel: vectors called `weight`, which readers are not."""
    found = [m.param for m in site.removes if m.axis == 0 and m.param not in site.readers]
    return [k for k in found if k.rpartition(".")[2] == "weight"]
