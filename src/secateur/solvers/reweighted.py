"""Reweighted group lasso: units are pulled to zero, the small ones harder, with weights that are taken anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._stages import plan
from secateur.solvers._state import State, gaps
from secateur.solvers._units import Units, refusal, units
from secateur.types import Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reweighted(Solver):
    """min f(W) + lambda sum_g a_g |W_g|, a_g = 1 / (|W_g| + eps), over the units g of every set of supports.

    A unit is what the set keeps or drops whole: a weight, a block, a row; a joint set pulls the units of all its parts.
    The weights a are taken anew at the start of each of `rounds` rounds, in which the learning rate restarts: this
    minimises sum log(|W_g| + eps) by majorisation. `form: square` is the same with |W_g|^2 throughout, a decay of its
    own for each unit. Both are exact proximal steps after the optimizer's: in the loss Adam would rescale them, and a
    step of descent would overshoot where a is large.

    lambda, which the papers sweep, follows the budget, which tightens round by round: of each site the largest unit
    that there is no room for goes to zero within a round where the loss does not object and `strength` is 1. The answer
    is the projection under the budget. With sets of values beside, what stays is rounded in the snap.

    Args:
        rounds: how often the weights are taken.
        strength: factor of lambda.
        bounded: units that the budget of the round has room for are left alone: rows have nearly equal norms, and of a
            pull on all of them nothing is left. False: all are pulled, as in the first papers.
        eps: in units of the root mean square norm of a site's units.
    Reference: Ma et al., BLK-REW, arXiv:2001.08357 (squares, blocks); Li et al., EMNLP Findings 2020, arXiv:2009.08065;
        Candes, Wakin & Boyd 2008, arXiv:0711.1612 (the majorisation).
    """

    rounds: int = 4
    strength: float = 2.0
    eps: float = 1e-3
    bounded: bool = True
    form: Literal["norm", "square"] = "norm"
    reference: ClassVar[str] = "Ma et al., BLK-REW, arXiv:2001.08357; Li et al. 2020, arXiv:2009.08065"

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.strength < 0 or self.eps <= 0:
            raise UsageError(
                f"solver reweighted: rounds={self.rounds}, strength={self.strength}, eps={self.eps}; rounds >= 1, "
                "strength >= 0 and eps > 0 needed"
            )
        if self.form not in ("norm", "square"):
            raise UsageError(f"solver reweighted: form={self.form!r}; `norm` or `square` is needed")

    def refuses(self, term: Term) -> str | None:
        """Sets that are no supports."""
        return refusal(term, "reweighted pulls")

    def init(self, problem: Problem) -> _State:
        """The weights of the first round; nothing is pruned."""
        return _State(problem, plan(min(self.rounds, max(problem.total_steps, 1)), (), problem.total_steps)).reweigh(
            self
        )

    def step(self, state: _State) -> _State:
        """The proximal step; new weights when a round begins."""
        for g in (g for g in state.unit_sets if g.name in state.pull):
            a, square = state.pull[g.name], self.form == "square"
            state.show(g.scaled(state.live, 1 / (1 + 2 * a) if square else (1 - a / g.norms(state.live)).clamp(0)))
        state.advance()
        return state.reweigh(self) if state.round_changed else state

    def finish(self, state: _State) -> Solution:
        """The projection at the final levels."""
        state.land(1.0)
        return state.solution()


@dataclass
class _State(State):
    """`pull` is lambda a_g for one step, [units] of each set; where all units may stay there is none."""

    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"unit_sets"}

    pull: dict[str, Tensor] = field(default_factory=dict)
    unit_sets: tuple[Units, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unit_sets = units(self.problem)

    def reweigh(self, solver: Reweighted) -> _State:
        """The weights of the penalty from today's norms."""
        self.levels, near = self.project(self.stage.high)
        live, power = self.live, 2 if solver.form == "square" else 1
        self.pull, self.residuals = {}, gaps(live, near)
        for g in self.unit_sets:
            norms, kept = g.norms(live), g.kept({**live, **near})
            if kept.all():
                continue
            weights = 1 / (norms.pow(power) + solver.eps * norms.square().mean() ** (power / 2))
            most = norms.sort().values[int((~kept).sum()) - 1] ** 2  # of what there is no room for
            if solver.bounded:
                weights = weights.masked_fill(kept, 0.0)
            self.pull[g.name] = weights * (solver.strength * most / max(self.stage.length, 1))
        return self

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The projection of `weights` at the levels of the round."""
        return {k: w.clone() for k, w in {**weights, **self.project(self.stage.high, weights)[1]}.items()}
