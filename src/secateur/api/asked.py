"""What a run is asked to do, from Python objects or from names, with its defaults put in; and the job that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from secateur import data
from secateur.errors import UsageError
from secateur.export.rebuild import load_model
from secateur.graph.unwrapping import plain, unwrapped
from secateur.proof.judge import Judge
from secateur.run.job import Job
from secateur.run.net import check_finite, example_of
from secateur.training import metrics
from secateur.training.batches import example_count, first_batch, pair, source
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Report, Setting

if TYPE_CHECKING:
    from secateur.recipe import Recipe

Loss = Callable[[Any, Any], Tensor]


@dataclass
class Asked:
    """A request with everything resolved but the recipe."""

    model: nn.Module
    train: Any
    loss: Loss
    evaluate: metrics.Evaluate
    higher_is_better: bool
    example_inputs: Any
    judge: Judge
    inputs: Any
    model_name: str
    data_name: str
    notes: list[str]
    dynamic_batch: bool | None = None
    teacher: nn.Module | None = None


def by_objects(
    model: nn.Module,
    train: Iterable[Any],
    loss: Loss,
    evaluate: Callable[[nn.Module], float] | None,
    valid: Iterable[Any] | None,
    higher_is_better: bool,
    example_inputs: Any,
    dynamic_batch: bool | None,
) -> Asked:
    """What `compress` is asked, with its defaults put in."""
    notes: list[str] = []
    if valid is not None and iter(valid) is valid:
        raise UsageError(
            f"valid: {type(valid).__name__} can be iterated only once; give a re-iterable such as a list of batches or "
            "a DataLoader"
        )
    if valid is None:
        valid = train
        if evaluate is None:
            notes.append("validated on the training data: no validation data was given")
    name = "metric"
    if evaluate is None:
        if loss is cross_entropy:
            evaluate, name = metrics.accuracy(valid), "accuracy"
        else:
            evaluate, name, higher_is_better = metrics.mean_loss(valid, loss), "loss", False
    return Asked(
        model=model,
        train=train,
        loss=loss,
        evaluate=evaluate,
        higher_is_better=higher_is_better,
        example_inputs=example_inputs,
        dynamic_batch=dynamic_batch,
        judge=Judge(name, evaluate, "validation", _count(valid) if name != "metric" else None, higher_is_better),
        inputs=first_batch(valid, "valid"),
        model_name=type(unwrapped(model)[0]).__name__ if isinstance(model, nn.Module) else "",
        data_name="given as objects",
        notes=notes,
    )


def by_name(recipe: Recipe, data_dir: str | Path | None) -> Asked:
    if recipe.data is None:
        raise UsageError("recipe: `data` is missing; give a known set such as mnist, or package.module:function")
    model = load_model(recipe)
    splits = data.load(recipe.data, data_dir, batch_size=recipe.training.batch_size)
    example = next(iter(splits.train))
    classes = isinstance(example[1], Tensor) and not example[1].is_floating_point()
    loss: Loss = cross_entropy if classes else mse_loss
    make = metrics.accuracy if classes else lambda part: metrics.mean_loss(part, mse_loss)
    held_out = splits.test if splits.test is not None else splits.valid
    judge = Judge(
        "accuracy" if classes else "mse",
        make(held_out),
        "test" if splits.test is not None else "validation",
        _count(held_out),
        classes,
    )
    return Asked(
        model=model,
        train=splits.train,
        loss=loss,
        evaluate=make(splits.valid),
        higher_is_better=classes,
        example_inputs=None,
        judge=judge,
        inputs=first_batch(held_out),
        model_name=recipe.model or "",
        data_name=recipe.data,
        notes=[],
    )


def make_job(asked: Asked, recipe: Recipe, ledger: Ledger, on_progress: Report | None) -> Job:
    """The job with its working copy of the model."""
    dense, said = plain(asked.model)
    check_finite(dense.eval())
    asked.notes += [f"model: {note}" for note in said]
    teacher = None if asked.teacher is None else plain(asked.teacher)[0].eval()
    if teacher is not None and not recipe.needs_teacher:
        raise UsageError(
            "teacher: no objective of the recipe listens to one; add objective: [{name: task}, {name: distillation}]"
        )
    if teacher is None and recipe.needs_teacher and not recipe.dense_is_trained:
        raise UsageError(
            "objective: an objective listens to the dense net, which solver.from_scratch without `dense:` does not "
            "train; give teacher=, add dense: {epochs: N}, or leave the objective out"
        )
    example = example_of(dense, asked.train, recipe, asked.example_inputs, asked.dynamic_batch)
    asked.notes += filter(None, [example.note])
    setting = Setting(
        model=dense,
        batches=source(asked.train),
        loss=asked.loss,
        evaluate=asked.evaluate,
        higher_is_better=asked.higher_is_better,
        seed=recipe.seed,
        ledger=ledger,
        teacher=teacher,
        on_progress=on_progress,
    )
    return Job(recipe, setting, dense, example, tuple(recipe.limits()))


def model_and_inputs(recipe: Recipe, data_dir: str | Path | None = None) -> tuple[nn.Module, Any]:
    """The recipe's model and two examples of its data, for what looks at the network alone."""
    job = make_job(by_name(recipe, data_dir), recipe, Ledger(), None)
    return job.dense, job.example_inputs


def _count(batches: Any) -> int:
    known = getattr(batches, "n_examples", None)
    return int(known) if known is not None else sum(example_count(y, x) for x, y in (pair(b, "valid") for b in batches))
