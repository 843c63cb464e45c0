"""Single-shot pruning and quantization: the net shows pruned and rounded weights from the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from secateur import schedules
from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._state import State
from secateur.types import Solution, Stage, Weights


@dataclass(frozen=True)
class Sspq(Solver):
    """W = Q(M * W'), the steps straight through to W'; Q rounds to `bits`, symmetric, one scale an output.

    M is the projection of W', anew every `every` steps while the tightness rises, and fixed after the first `ramp` of
    the steps; W' then moves inside it. Both are there at once, so that the weights learn to bear both. Without a set
    of values in the recipe the answer is what was shown, rounded; with one its own grid follows (`snap`), and `bits`
    should be its bits.

    Args:
        bits: of the grid {q * scale : |q| <= 2^(bits-1) - 1}, scale = largest |w| of the output / the largest q.
        every: steps between two prunings of the ramp.
        ramp: share of the steps after which M is fixed.
    Reference: single-shot pruning and quantization, SSPQ (the abstract; the formulas are our reading of it).
    """

    bits: int = 8
    every: int = 10
    ramp: float = 0.5
    reference: ClassVar[str] = "SSPQ: single-shot pruning and quantization (our reading)"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16 or self.every < 1 or not 0 < self.ramp <= 1:
            raise UsageError(
                f"solver sspq: bits={self.bits}, every={self.every}, ramp={self.ramp}; 2..16 bits, every >= 1 and "
                "0 < ramp <= 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """Sets that rounding would leave."""
        if term.constraint.before(Stage.SUPPORT, None) is None:
            return None
        return f"sspq rounds weights, which would no longer be of the form that {term.constraint.name} asks for"

    def init(self, problem: Problem) -> _State:
        """Rounded, not pruned yet."""
        state = _State(problem, solver=self, latent={k: p.detach().clone() for k, p in problem.params.items()})
        state.show(state.candidate(state.latent))
        return state

    def step(self, state: _State) -> _State:
        """The weights behind make the step of the optimizer; now and then M follows them."""
        held, live = state.candidate(state.latent), state.live
        moved = {k: live[k] - held[k] for k in held}
        if state.frozen is not None:
            state.frozen.mask_(moved)
        state.latent = {k: w + moved[k] for k, w in state.latent.items()}
        state.advance()
        end = max(round(self.ramp * state.problem.total_steps), 1)
        if state.n == end or (state.n < end and state.n % self.every == 0):
            state.choose(schedules.get("cubic")(state.n / end))
        state.show(state.candidate(state.latent))
        return state

    def finish(self, state: _State) -> Solution:
        """Q(M * W') at the final levels."""
        state.choose(1.0)
        state.show(state.candidate(state.latent))
        return state.solution()


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The nearest q * scale, |q| <= 2^(bits-1) - 1, scale = the largest |w| of each output over the largest q."""
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True) / top
    codes: Tensor = (weight / scale.masked_fill(scale == 0, 1.0)).round()
    near: Tensor = codes * scale
    return near


@dataclass
class _State(State):
    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"solver"}

    solver: Sspq = field(kw_only=True)
    latent: dict[str, Tensor] = field(default_factory=dict)

    def choose(self, tightness: float) -> None:
        self.levels, near = self.project(tightness, self.latent)
        self.freeze({**self.latent, **near})

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """Masked and rounded: the weights that a term acts on, where they have outputs."""
        out = super().candidate(weights)
        names = {m.param for t in self.problem.terms for m in t.site.members}
        return {k: rounded(w, self.solver.bits) if k in names and w.dim() > 1 else w for k, w in out.items()}

    def tracked(self) -> dict[str, Tensor]:
        return self.latent
