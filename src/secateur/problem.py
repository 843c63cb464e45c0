"""What a solver is asked, and what methods may know of a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.types import Level, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.contracts import Term

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
