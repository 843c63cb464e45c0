"""The way to the sets: what a solver is asked, what methods may know of a weight, solvers and saliencies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from secateur.contracts.sets import Term
from secateur.types import Level, Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor

# (weights, importance per site or None, tightness in [0, 1]) -> level per site name. Tightness 0 = dense, 1 = target.
Allocate = Callable[[Weights, "Mapping[str, Tensor | None]", float], "dict[str, Level]"]
# weights (with zeros) -> boolean tensor per parameter: can this weight still influence an output?
Effective = Callable[[Weights], "dict[str, Tensor]"]


# What methods may ask to know of a weight (`needs`, `Problem.statistics`); `training/calibration.py` measures each.
STATISTICS = {
    "second_moment": "running mean of squared gradients (the optimizer's where it keeps one); the parameter's shape",
    "gradient": "a recent gradient; the parameter's shape",
    "input_norm": "root of the mean over examples of sum x^2, x = what the weight is multiplied with; its shape",
    "input_gram": "2 X X^T over examples, float32 [groups, cols, cols], columns as in the view `oc`; linear, conv",
    "curvature": "diagonal of the loss's Hessian before the first step (Hutchinson), may be negative; its shape",
    "fisher": "mean over examples of the squared gradient of one's loss, before the first step; its shape",
    "sensitivity": "|w g| before the first step, g the mean gradient over some batches; its shape",
    "movement": "-sum of w g over the steps so far, positive where w grew; its shape",
}
TRIAL = "trial"  # what a solver's `needs` may name beside them: it asks `Problem.trial`
FROM_INPUTS = frozenset({"input_norm", "input_gram"})  # need calibration data, not only gradients
FROM_LOSS = frozenset({"curvature", "fisher", "sensitivity"})  # need the loss on calibration data, before any step
Statistics = Callable[[str, str], "Tensor | None"]  # (parameter, name of a statistic) -> it, None before it is known


@dataclass(frozen=True)
class Problem:
    """What a solver is asked: move `params` so that every term holds at its final level.

    `params` are the live parameters (the solver's own working copy; the one thing that is changed in place).
    `allocate` answers levels for any tightness from today's weights. `importance` answers today's h per site, as the
    matrix that the term's constraint sees (None = all ones). `effective` marks weights that can matter
    (dead-end and source-less ones are False). `companions` masks what must go with removed channels (their biases and
    norms). `examples` is the batch size: the empirical Fisher is `examples` times the second moment.
    `adaptive` says that the optimizer divides its steps by the root of the second moment (Adam). `statistics(site,
    name)` answers what the solver's `needs` names, per parameter (a plain site's name is its parameter's); None before
    it is known. Inputs are measured when asked for, through the live weights: layer after layer sees what comes.
    `trial` answers the mean training loss, on some batches that stay the same, of the net with `weights` (all or some
    of `params`) in the place of its own; no gradients, nothing is changed by it. Batch norms go by the batch's own
    statistics, everything else is in evaluation mode. Only for solvers whose `needs` name it.
    """

    params: dict[str, Tensor]
    terms: tuple[Term, ...]
    allocate: Allocate
    total_steps: int
    importance: Callable[[], Mapping[str, Tensor | None]] = dict
    effective: Effective | None = None
    companions: Effective | None = None
    examples: int = 1
    adaptive: bool = False
    statistics: Statistics = lambda site, name: None
    learning_rate: Callable[[], float] = lambda: 0.0
    seed: int = 0
    trial: Callable[[Weights], float] | None = None


@dataclass(frozen=True)
class Saliency(ABC):
    """How much a weight matters, as the weight h of the projection's metric sum h (w - z)^2.

    `needs` lists what it reads: any of `STATISTICS`, and `generator` (a seeded torch.Generator). The score of the
    field is sqrt(h) * |w|: |w| * v^a is h = v^(2a); Taylor |w * g| is h = g^2.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""

    @abstractmethod
    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """h, same shape as `weight`, >= 0, finite; None means all ones."""


class SolverState(Protocol):
    """What the loop asks of a solver's state (`training/phases.py`); `solvers/_state.py` answers for most solvers.

    `round_changed` tells the caller to restart the learning rate.
    """

    round_changed: bool

    @property
    def span(self) -> tuple[int, int]:
        """Start and length, in steps, of the present learning-rate round."""

    def tracked(self) -> dict[str, Tensor]:
        """Per parameter what weight averaging follows: the live weights, or latent ones behind them."""

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The point at today's levels that belongs to `weights` (as `tracked`, or their average); new tensors."""

    def numbers(self) -> dict[str, float]:
        """What the curves show: `primal_residual`, `rho`, `mask_churn`, ..."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON for a resume that goes on to the bit."""

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Exactly as saved, into a fresh state of the same problem whose parameters have been restored."""


@dataclass(frozen=True)
class Solver(ABC):
    """Takes the weights to the sets.

    The caller owns the loop (ours in `training`, or the user's): loss backward, optimizer step, then `step`. The only
    thing changed in place is `problem.params`.
    """

    instant: ClassVar[bool] = False  # init() lands on the sets at once: no approach phase is needed
    by_chance: ClassVar[bool] = False  # do its supports hang on what it draws? then they must beat drawn ones only
    moves_values: ClassVar[bool] = False  # can approach value sets (bits, codebooks), not supports only
    needs: ClassVar[frozenset[str]] = frozenset()  # what it asks of the problem: names of STATISTICS, or TRIAL
    reference: ClassVar[str] = ""

    def refuses(self, term: Term) -> str | None:
        """Why the solver cannot act on that term; asked when the recipe meets the net."""
        return None

    def legs(self) -> tuple[tuple[Solver, float, float, float], ...]:
        """The approach in parts between which the net may be cut: (solver, share of the steps, tightness from, to)."""
        return ((self, 1.0, 0.0, 1.0),)

    @abstractmethod
    def init(self, problem: Problem) -> SolverState:
        """A fresh state; its class is the solver's own, which `step`, `finish` and `penalty` are called with."""

    def before_step(self, state: Any) -> None:  # noqa: B027  # most solvers take gradients as they come
        """After backward, before the optimizer's step: may change the gradients of `problem.params`, in place."""

    @abstractmethod
    def step(self, state: Any) -> SolverState:
        """After one optimizer step: proximal pull, round updates, masks."""

    @abstractmethod
    def finish(self, state: Any) -> Solution:
        """The projected answer at the final levels."""

    def penalty(self, state: Any) -> Tensor | float:
        """Added to the loss; 0 where the solver takes an exact proximal step in `step`."""
        return 0.0
