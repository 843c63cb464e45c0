"""`plan`: what a budget would buy, for a network at hand or for a recipe, whose dense net is trained first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.functional import cross_entropy

from secateur.api.asked import Asked, Loss, by_name, by_objects, make_job
from secateur.api.rehearsal import check_fits
from secateur.budget import kinds
from secateur.errors import UsageError
from secateur.export import written
from secateur.graph.counts import left_out_note
from secateur.recipe import Recipe
from secateur.report import progress, words
from secateur.run import bounds, planning, stages
from secateur.shell import interrupts, saving
from secateur.shell.showing import Shown, table
from secateur.training import checkpoint, seeds, threads
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Report, load_weights

if TYPE_CHECKING:
    from rich.console import Console

_ZOO = "secateur.zoo:"


def plan(
    model: nn.Module,
    train: Iterable[Any],
    *,
    budget: Mapping[str, Any] | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    loss: Loss = cross_entropy,
    evaluate: Callable[[nn.Module], float] | None = None,
    valid: Iterable[Any] | None = None,
    higher_is_better: bool = True,
    example_inputs: Any = None,
    dynamic_batch: bool | None = None,
    seed: int | None = None,
    on_progress: Report | bool | None = None,
) -> Shown:
    """What `compress` with the same arguments would aim at: levels per layer, bytes, nonzeros, MACs.

    The model is not changed. Nothing is trained, unless the recipe's `dense` says that the dense net is to be trained
    first (a copy).

    Returns:
        `planning.plan`'s record: layers, rest, totals, budget, notes; prints as a table.
    Raises:
        BudgetError: the budget cannot be met; `smallest` is the nearest reachable size. Others as `compress`.
    """
    resolved = Recipe.of(recipe, budget, seed)
    asked = by_objects(model, train, loss, evaluate, valid, higher_is_better, example_inputs, dynamic_batch)
    with progress.shown(on_progress) as report:
        return _plan(asked, resolved, report)


def of_recipe(
    recipe: Recipe,
    data_dir: str | Path | None = None,
    *,
    untrained: bool = False,
    dense: Path | None = None,
    keep: Path | None = None,
    on_progress: Report | None = None,
) -> Shown:
    """What `secateur plan RECIPE` shows.

    Args:
        untrained: plan on the weights as the recipe's model has them, without its `dense` training; no metrics.
        dense: take the dense net from there: a `.safetensors` file, or a run's folder with its checkpoint.
        keep: write the dense net there as `.safetensors`.
    """
    return _plan(by_name(recipe, data_dir), recipe, on_progress, untrained, dense, keep)


def training_note(recipe: Recipe) -> str:
    """One line: that a plan trains first, and how to have it at once; empty where it does not."""
    training = recipe.dense_training()
    if training is None:
        return ""
    return (
        f"the recipe trains its dense net, {training[0]:g} epochs, and the plan needs it: training it now; --untrained "
        "plans at once, on sizes alone, and --dense takes a net that is trained already"
    )


def _plan(
    asked: Asked,
    recipe: Recipe,
    report: Report | None,
    untrained: bool = False,
    dense: Path | None = None,
    keep: Path | None = None,
) -> Shown:
    seeds.keep_memory()
    job = replace(make_job(asked, recipe, Ledger(), report), proven=False)
    notes = [*asked.notes]
    training = None if untrained or dense is not None else recipe.dense_training()
    if training is not None:
        bounds.refuse(replace(job, stages=[]))
        check_fits(asked, job)
        with (
            seeds.isolated(threads.choose(lambda: stages.step_once(job), recipe.training.threads)),
            interrupts.watched() as asks,
        ):
            job.setting.interrupted = asks
            stages.train_dense(job, *training)
        notes.append(
            f"the dense net was trained first, as compress does it ({training[0]:g} epochs, "
            f"{words.seconds(job.stages[-1]['seconds'])})"
        )
    elif dense is not None:
        _take(job.dense, dense)
        notes.append(f"the dense net is that of {dense}")
    elif untrained:
        notes.append("planned on weights that are not trained: sizes are estimates, and metrics would say nothing")
    elif (recipe.model or "").startswith(_ZOO) and recipe.weights is None:
        notes.append(
            f"{recipe.model} has random weights: the recipe names no `weights:` and trains no `dense:` net; give one"
        )
    if training is None:
        bounds.graph_alone(job)  # the plan of these very weights tells the rest
    if keep is not None:
        saving.write_bytes(keep, written.tensors_of(job.dense))
        notes.append(f"the dense net is in {keep}: plan or compress with --set weights={keep} --set dense=null")
    stages.settle_dense(job)
    with seeds.isolated():
        found = planning.plan(job, measured=not untrained)
    chosen = recipe.resolved(*job.start.traced.free)[1]
    found["notes"] = [*notes, *found["notes"], *filter(None, [left_out_note(found["left_out"]), chosen])]
    return Shown(found, _show)


def _take(model: nn.Module, path: Path) -> None:
    """The dense net's weights from a safetensors file, or from a run's folder: finished, or its checkpoint.

    Raises:
        UsageError: nothing there, or weights of another model. FormatError: damaged.
    """
    file = path / written.DENSE if path.is_dir() else path
    if file.is_file() or not path.is_dir():
        from secateur import zoo

        zoo.load_weights(model, file)
        return
    for file in sorted((path / "checkpoint").glob("*.safetensors")):
        tensors, facts = checkpoint.read(file)
        if facts["stage"] == "dense" and file.stem != "current":
            own = model.state_dict()
            if {k: v.shape for k, v in tensors.items()} != {k: own[k].shape for k in tensors if k in own}:
                raise UsageError(f"{path}: its dense net is another model than the recipe's")
            load_weights(model, tensors)
            return
    raise UsageError(
        f"{path}: no trained dense net: neither {written.DENSE}, which a finished run that trained it has, nor a "
        "checkpoint of it"
    )


_COLUMNS = {
    "layer": "name",
    "shape": "shape",
    "set": "constraint",
    "level": "level",
    "density": "density",
    "bits": "bits",
    "in the engine": "runs",
}
_MEASURED = {"alone, metric": "one_shot_metric", "drop": "one_shot_drop"}


def _show(found: Mapping[str, Any], console: Console) -> None:
    named = {row["name"] for row in found["budget"]}
    sizes = {
        words.heading(m.unit): kind
        for kind, m in kinds.meters().items()
        if kind in found and (m.shown or kind in named)
    }
    shown = {**_COLUMNS, **sizes, **(_MEASURED if found["dense_metric"] is not None else {})}
    total = {"name": "total", **{k: found[k] for k in sizes.values()}}
    lines = [*found["layers"], {"name": "all else", **found["rest"]}, total]
    rows = [[_text(line.get(key)) for key in shown.values()] for line in lines]
    size, dense = words.nbytes(found["nbytes"]), words.nbytes(found["dense_nbytes"])
    console.print(table("plan", list(shown), rows, f"predicted {size} +- {found['nbytes_error']:.0%}, dense {dense}"))
    for row in found["budget"]:
        asked, got = words.amount(row["name"], row["asked"]), row["predicted"]
        said = "judged after the training" if got is None else f"predicted {words.amount(row['name'], got)}"
        said += ", binds" if row["name"] == found["binds"] and len(found["budget"]) > 1 else ""
        console.print(f"budget {row['name']}: asked {asked}, {said}", markup=False, highlight=False)
    for note in found["notes"]:
        console.print(f"- {note}", markup=False, highlight=False)


def _text(value: object) -> object:
    if isinstance(value, list | tuple):
        return "x".join(str(v) for v in value)
    return "-" if value is None else value
