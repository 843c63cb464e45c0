"""The trainings of a run, one function each: dense, approach, held (polish), snap; and one step of it for timing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur import catalog
from secateur.graph.copying import copied
from secateur.run import problem
from secateur.terms import feasible
from secateur.terms.frozen import Frozen
from secateur.training import bias, learned, seeds
from secateur.training.alternate import Alternate
from secateur.training.loop import Outcome, Stage, combined_loss, train
from secateur.training.phases import Approach, Held, Phase, Snap, write
from secateur.types import Solution

if TYPE_CHECKING:
    from secateur.budget.purse import Purse
    from secateur.contracts import Solver
    from secateur.recipe import Training
    from secateur.run.job import Job
    from secateur.run.net import Net


def train_dense(job: Job, epochs: float, training: Training) -> None:
    """Train the dense net itself."""
    job.use(job.dense)
    phase = Phase(job.setting.params, job.steps(epochs))
    _train(job, Stage("dense", phase, training, [catalog.load("objectives", "task")()]), epochs)


def settle_dense(job: Job) -> None:
    """The dense net is final: evaluation mode, and the teacher where an objective asks for one and none was given."""
    job.use(job.dense)
    job.dense.eval()
    if job.setting.teacher is None and job.recipe.needs_teacher:
        job.setting.teacher = job.dense


def approach(job: Job, name: str, solver: Solver, net: Net, purse: Purse, epochs: float) -> None:
    """The solver's way towards the sets, inside the budget."""
    job.use(net.module)
    training = job.recipe.training
    stats = problem.measured(net, job.recipe, job.setting, job.told(f"{name}.inputs"))
    started: list[Approach] = []

    def importance() -> dict[str, Tensor | None]:
        at = started[0].n if started else 0  # a solver may ask inside init()
        return problem.importance_now(net, job.recipe, stats, job.setting.seed, name, "saliency", at)

    asked = problem.build(
        net,
        solver,
        purse,
        job.setting.params,
        stats,
        importance=importance,
        recipe=job.recipe,
        total_steps=job.steps(epochs),
        adaptive=training.optimizer != "sgd",
        trial=problem.trial(net, job.recipe, job.setting, job.told(f"{name}.trials")),
    )
    with torch.no_grad():
        phase = Approach(solver, asked, purse, job.recipe.keep_zeros)
    started.append(phase)
    if asked.total_steps == 0:
        phase.close()
        return
    stage = Stage(name, phase, training, job.recipe.build_objectives(), keep_best=False, statistics=stats)
    outcome = _train(job, stage, epochs)
    if "memory" in outcome.facts:
        purse.load(outcome.facts["memory"])


def held(job: Job, name: str, net: Net, epochs: float) -> None:
    """Masked retraining: the supports are fixed."""
    job.use(net.module)
    terms, levels = feasible.support_only(net.terms, net.levels)
    phase = Held(terms, levels, job.setting.params, job.steps(epochs), net.companions, job.recipe.keep_zeros)
    objectives = job.recipe.build_objectives(polish=True)
    _train(job, Stage(name, phase, job.recipe.training_of("polish"), objectives), epochs)


def alternate(job: Job, name: str, net: Net, rungs: Sequence[Frozen], epochs: float) -> None:
    """Masked retraining of several levels of one set of weights, by turns."""
    job.use(net.module)
    phase = Alternate(rungs, job.setting.params, job.steps(epochs))
    objectives = job.recipe.build_objectives(polish=True)
    _train(job, Stage(name, phase, job.recipe.training_of("polish"), objectives), epochs)


def snap(job: Job, name: str, net: Net, epochs: float) -> None:
    """Training of values inside their sets, and of the scales of activations."""
    job.use(net.module)
    job.pulse(f"{name}.values", last=True)
    before = copied(net.module) if job.recipe.bias_correction else None
    scales = learned.scales_of(net.module)
    with learned.learning(net.module, scales):
        with torch.no_grad():
            phase = Snap(
                net.terms,
                net.levels,
                job.setting.params,
                job.steps(epochs),
                net.companions,
                scales=scales,
                keep_zeros=job.recipe.keep_zeros,
            )
            if before is not None:
                held = {m.param for t in net.terms for m in t.site.members}
                biases = bias.corrected(net.module, before, lambda: problem.some_inputs(job.setting), held)
                write(dict(net.module.named_parameters()), net.terms, Solution(biases, net.levels))
        objectives = job.recipe.build_objectives(polish=True)
        _train(job, Stage(name, phase, job.recipe.training_of("snap"), objectives), epochs)


def step_once(job: Job) -> None:
    """One forward and backward pass of the dense net, for timing; nothing changes."""
    batch = next(job.setting.batches.epoch(job.setting.seed, "timing", 0))
    with seeds.isolated():
        net = copied(job.dense)
        job.use(net)
        task = catalog.load("objectives", "task")()
        combined_loss(job.setting, [task], 0.0, *batch).backward()  # type: ignore[no-untyped-call]
        job.use(job.dense)


def _train(job: Job, stage: Stage, epochs: float) -> Outcome:
    job.check()
    outcome = train(job.setting, stage)
    facts: dict[str, Any] = {k: v for k, v in outcome.facts.items() if k != "memory"}
    job.stages.append(
        {
            "name": stage.name,
            "seconds": outcome.seconds,
            "epochs": epochs,
            "metric": outcome.metric,
            "curve": outcome.curve,
            **facts,
        }
    )
    return outcome
