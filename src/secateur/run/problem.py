"""What a solver is asked, from a net, its budget and what is known of its gradients: for our loop and the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur.contracts import FROM_LOSS, Problem, Saliency, Solver, Term
from secateur.terms import feasible, views
from secateur.training import calibration, seeds, sensitivity
from secateur.training.inputs import Inputs
from secateur.training.loop import Setting, combined_loss
from secateur.training.trial import BATCHES, Trial
from secateur.types import Weights

if TYPE_CHECKING:
    from secateur.budget.purse import Purse
    from secateur.recipe import Recipe
    from secateur.run.net import Net

_CALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class Phases:
    """Shares of the epochs."""

    approach: float
    polish: float
    snap: float


def phases(recipe: Recipe, solver: Solver, terms: Sequence[Term]) -> Phases:
    """Shares of the epochs. Without value constraints there is no snap, without supports no polish."""
    values, supports = feasible.has_values(terms), bool(support_terms(terms))
    if not supports:
        snap = recipe.snap if solver.moves_values else 1.0
        return Phases(1.0 - snap, 0.0, snap)
    snap = recipe.snap if values else 0.0
    polish = 1.0 - snap if solver.instant else recipe.polish
    return Phases(max(round(1.0 - polish - snap, 9), 0.0), polish, snap)


def support_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms' support parts, before any level is known."""
    return feasible.support_only(terms, {t.site.name: None for t in terms})[0]


def build(
    net: Net,
    solver: Solver,
    purse: Purse,
    params: Mapping[str, Tensor],
    stats: calibration.Statistics,
    *,
    importance: Callable[[], Mapping[str, Tensor | None]],
    recipe: Recipe,
    total_steps: int,
    adaptive: bool,
    trial: Trial | None = None,
) -> Problem:
    """The problem of an approach: its supports, or its values where there is nothing else and the solver moves them.

    Args:
        params: the live parameters, the one thing that the solver changes in place.
        adaptive: does the optimizer divide its steps by the root of the second moment?
        trial: needed where the solver's `needs` name it.
    """
    terms = support_terms(net.terms)
    values_too = not terms and solver.moves_values
    return Problem(
        params=dict(params),
        terms=net.terms if values_too else terms,
        allocate=purse.levels if values_too else purse.support_levels,
        total_steps=total_steps,
        importance=importance,
        effective=net.traced.effective,
        companions=net.companions,
        statistics=stats,
        learning_rate=stats.learning_rate,
        examples=recipe.training.batch_size,
        adaptive=adaptive,
        seed=recipe.seed,
        trial=trial,
    )


def importance_of(
    terms: Sequence[Term],
    weights: Weights,
    saliency: Saliency,
    stats: calibration.Statistics,
    generator: torch.Generator,
) -> dict[str, Tensor | None]:
    """h per site as the matrix of its term's view; None = all ones (for abs, or while a statistic is unknown)."""

    def known(param: str) -> dict[str, Any]:
        return {k: generator if k == "generator" else stats(param, k) for k in saliency.needs}

    out: dict[str, Tensor | None] = {}
    for t in terms:
        parts: dict[str, Tensor] = {}
        for m in t.site.members:
            h = saliency.importance(weights[m.param], known(m.param))
            if h is not None:
                parts[m.param] = h
        whole = len(parts) == len({m.param for m in t.site.members})
        out[t.site.name] = views.matrix(t.site, t.constraint.view, parts) if whole else None
    return out


def measured(
    net: Net,
    recipe: Recipe,
    setting: Setting,
    told: Callable[[], None] = lambda: None,
    needs: Collection[str] | None = None,
) -> calibration.Statistics:
    """Statistics before any step, on some batches: mean squared and mean gradients where a method wants them; inputs
    when they are asked for.

    Args:
        told: called before inputs are measured, layer by layer.
        needs: the statistics that will be asked for; None: all that the recipe's methods need.
    """
    needs = recipe.needs if needs is None else needs
    params = dict(net.module.named_parameters())
    inputs = Inputs(net.module, lambda: some_inputs(setting), told)
    gradients = {"second_moment", "gradient", "movement"} & set(needs)
    if not gradients and not FROM_LOSS & set(needs):
        return calibration.Statistics(params, inputs=inputs)
    objectives = recipe.build_objectives(polish=True)
    batches = setting.batches.epoch(setting.seed, "calibrate", 0)

    def backward() -> bool:
        batch = next(batches, None)
        if batch is None:
            return False
        loss = combined_loss(setting, objectives, 0.0, *batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return True

    modes = {m: m.training for m in net.module.modules()}
    net.module.eval()  # batch-norm statistics and dropout must not move
    try:
        squares, means = (
            calibration.gradient_moments(setting.params, backward, _CALIBRATION_BATCHES) if gradients else ({}, {})
        )
        found = sensitivity.measured(
            needs,
            setting.params,
            lambda batch: combined_loss(setting, objectives, 0.0, *batch),
            lambda: islice(setting.batches.epoch(setting.seed, "calibrate", 0), _CALIBRATION_BATCHES),
            seeds.generator(setting.seed, "calibrate", "signs"),
        )
        return calibration.Statistics(params, squares, means, inputs, found, "movement" in needs)
    finally:
        for module, mode in modes.items():
            module.training = mode


def some_inputs(setting: Setting) -> Iterator[Any]:
    """The inputs of the batches that everything is calibrated on."""
    for inputs, _ in islice(setting.batches.epoch(setting.seed, "calibrate", 0), _CALIBRATION_BATCHES):
        yield inputs


def trial(net: Net, recipe: Recipe, setting: Setting, told: Callable[[], None]) -> Trial:
    """Other weights judged by the approach's own objective, on the first of the batches that calibrate."""
    batches: list[Any] = []

    def loss() -> float:
        batches.extend([] if batches else islice(setting.batches.epoch(setting.seed, "calibrate", 0), BATCHES))
        objectives = recipe.build_objectives()
        return sum(float(combined_loss(setting, objectives, 0.0, *b)) for b in batches) / len(batches)

    return Trial(net.module, loss, told)


def importance_now(
    net: Net, recipe: Recipe, stats: calibration.Statistics, *key: int | str
) -> dict[str, Tensor | None]:
    """Today's importance of every site; `key` seeds what is drawn."""
    return importance_of(net.terms, net.weights, recipe.build_saliency(), stats, seeds.generator(*key))
