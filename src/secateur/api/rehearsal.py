"""What would be found out only after the training, tried before it: the loss, a step, the files, the record."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from secateur import graph
from secateur.errors import SecateurError, UnsupportedError, UsageError
from secateur.graph.copying import copied
from secateur.graph.counts import channels_note, left_out, left_out_note
from secateur.proof import record
from secateur.run import activations, bounds, search, whole
from secateur.run.net import Candidate, Net
from secateur.shell.importing import told
from secateur.training import metrics, seeds
from secateur.training.batches import call, first_batch, pair
from secateur.training.checkpoint import Ledger

if TYPE_CHECKING:
    from secateur.api.asked import Asked
    from secateur.recipe import Recipe
    from secateur.run.job import Job

_REHEARSAL = {"bench": {"seconds": 0.001}}


def check_fits(asked: Asked, job: Job) -> None:
    """What would else be found only after the dense training: model, data, loss and recipe that do not go together.

    Raises:
        UsageError, ConstraintError, UnsupportedError: with the layer, or the line of the user's code.
    """
    traced = graph.trace(job.dense, job.example_inputs)
    terms = job.terms_on(job.dense, traced)
    activations.planned(job, Net(job.dense, traced, terms))
    for said in whole.notes(whole.kept(job.dense, traced, terms)):
        logging.getLogger("secateur").warning(said)
        asked.notes.append(said)
    if note := channels_note(terms, traced):
        logging.getLogger("secateur").warning(note)
    if note := left_out_note(left_out(traced)):
        logging.getLogger("secateur").warning(note)
    if note := job.recipe.resolved(*traced.free)[1]:
        logging.getLogger("secateur").warning(note)
        asked.notes.append(note)
    first_batch(asked.train)  # says what is wrong with it
    inputs, targets = pair(next(iter(asked.train)), "train")
    with metrics.evaluating(job.dense):
        outputs = call(job.dense, inputs)
    if job.setting.teacher is not None:
        _check_teacher(job.setting.teacher, inputs, outputs)
    try:
        asked.loss(outputs, targets)
    except Exception as e:
        raise UsageError(
            f"loss: fails on a batch of the training data, outputs {_shapes(outputs)}, targets {_shapes(targets)}: "
            f"{told(e)}; give a model, data and loss= that belong together"
        ) from e
    try:
        with seeds.isolated():
            trial = copied(job.dense).train()
            asked.loss(call(trial, inputs), targets).backward()
    except Exception as e:
        raise UsageError(
            f"training: a step on the first batch fails, inputs {_shapes(inputs)}: {told(e)}; the model must train on "
            "the batches as they are (batch statistics need two examples; a part that runs in training mode only must "
            "suit loss=)"
        ) from e


def _check_teacher(teacher: nn.Module, inputs: Any, outputs: Any) -> None:
    """UsageError where its answers are not of the model's shapes."""
    try:
        with metrics.evaluating(teacher):
            found = _shapes(call(teacher, inputs))
    except Exception as e:
        raise UsageError(f"teacher: fails on a batch of the training data: {told(e)}") from e
    if found != _shapes(outputs):
        raise UsageError(f"teacher: its outputs are {found}, the model's {_shapes(outputs)}; they must be alike")


def rehearse(asked: Asked, job: Job) -> bool:
    """What comes after the training, on the dense net and one example: what fails there fails now, before any work.

    Written, packed, run in the engine and its peers, compared, timed and recorded; the metric is asked of the module.

    Raises:
        SecateurError: with the reason.
    """
    setting = replace(job.setting, ledger=Ledger(), on_progress=None)
    bench = {**job.recipe.bench.model_dump(), **_REHEARSAL["bench"]}
    trial = replace(job, recipe=job.recipe.replace(bench=bench), setting=setting, stages=[])
    metric = 0.0
    bounds.refuse(trial)
    try:
        metric = float(asked.judge.evaluate(trial.start.module))
        candidate = Candidate("rehearsal", trial.start, trial.dense_files, metric, {}, [])
        judge = replace(asked.judge, evaluate=lambda module: metric)
        facts = facts_of(asked, trial.recipe, 1)
        json.dumps(
            record.build(trial, search.Answer(candidate, None), judge, job.example_inputs.few(asked.inputs, 1), facts)
        )
    except SecateurError:
        raise
    except Exception as e:
        raise UnsupportedError(
            f"{asked.model_name}: the dense network cannot be evaluated, written or recorded, so no training was "
            f"begun: {told(e)}"
        ) from e
    if job.recipe.dense_training() is None:
        job.take_over(trial)
    return True


def facts_of(asked: Asked, recipe: Recipe, n_threads: int) -> dict[str, Any]:
    return {
        "model": asked.model_name,
        "data": asked.data_name,
        "seed": recipe.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.to_yaml(),
        "threads": n_threads,
        "notes": asked.notes,
    }


def _shapes(value: Any) -> str:
    """`float32 [128, 10]`, for messages."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_shapes(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_shapes(v) for v in value) + ")"
    return type(value).__name__
