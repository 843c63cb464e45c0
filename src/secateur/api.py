"""The one door: `compress`, `Compressor`, `Result`, `load`, and `run` for the command line."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from secateur import bounds, graph, interrupts, named_inputs, planning, progress, record, saving, search, written
from secateur.compressor import Compressor as Compressor
from secateur.copying import copied
from secateur.errors import (
    EnvironmentFailure,
    InterruptedRun,
    RecordError,
    SecateurError,
    UnsupportedError,
    UsageError,
)
from secateur.importing import told
from secateur.job import Candidate, Job, check_finite, first_batch, left_out, left_out_note
from secateur.recipe import Recipe
from secateur.result import Result as Result
from secateur.result import save_network, write_page
from secateur.training import metrics, seeds, threads
from secateur.training.batches import call, example_count, first_tensor, pair, source, tensors
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Setting
from secateur.types import Progress
from secateur.unwrapping import plain, unwrapped

if TYPE_CHECKING:
    from secateur.data.spec import Splits

Loss = Callable[[Any, Any], Tensor]
Report = Callable[[Progress], None]
_REHEARSAL = {"bench": {"seconds": 0.001}}


def compress(
    model: nn.Module,
    train: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    evaluate: Callable[[nn.Module], float] | None = None,
    valid: Iterable[Any] | None = None,
    higher_is_better: bool = True,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    budget: Mapping[str, Any] | None = None,
    example_inputs: Any = None,
    dynamic_batch: bool | None = None,
    seed: int | None = None,
    on_progress: Report | bool | None = None,
) -> Result:
    """Compress a trained network under a budget, in our training loop.

    Args:
        model: any module that `torch.export` can trace; not changed (training works on a copy).
        train: a re-iterable of `(inputs, targets)`; inputs a tensor, tuple or dict. `secateur.data.TensorData` is
            shuffled afresh each epoch.
        loss: task loss `(outputs, targets) -> scalar`.
        evaluate: `model -> metric` on validation data; default: accuracy on `valid` for cross-entropy, else the mean
            loss on `valid` (lower is better).
        valid: validation batches; default: `train` itself, which the report says.
        recipe: a Recipe, a mapping of its keys, or the path of a YAML file.
        budget: overrides the recipe's budget, as `{"nbytes": "6KB"}`; a plain number is bytes: `{"nbytes": 12_345}`.
        example_inputs: what the network is traced and written on: a tensor, a tuple (positions) or a dict (keywords),
            or the name of such inputs as the recipe's key of that name. Default: the first two examples of `train`;
            the whole first batch where rows are no examples (a graph's nodes, time in front), which the report says.
        dynamic_batch: True: the written network takes any batch, or the run is refused; False: only that of the
            example; default: any batch where the network and torch's exporter permit it, else one example at a time.
        seed: overrides the recipe's seed.
        on_progress: None shows a bar with rate and time left on a terminal (stderr) and a line in a notebook; elsewhere
            each training is one line of the logger `secateur` at INFO, which Python shows only where it is asked to
            (`logging.basicConfig(level="INFO")`). False is silence. A callable gets `secateur.types.Progress` events.
    Raises:
        BudgetError: the budget cannot be met (with the nearest reachable value). UsageError, ConstraintError,
        UnsupportedError: see the message. DivergedError: the loss became NaN. InterruptedRun: Ctrl-C; a call has no
        folder to keep its work in, a recipe's run (`secateur compress RECIPE -o DIR`) can be resumed.
    """
    resolved = resolve(recipe, budget, seed)
    asked = by_objects(model, train, loss, evaluate, valid, higher_is_better, example_inputs, dynamic_batch)
    with progress.shown(on_progress, baselines_note(resolved)) as report:
        return _compress(asked, resolved, Ledger(), report)


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
        judge=record.Judge(name, evaluate, "validation", _count(valid) if name != "metric" else None, higher_is_better),
        inputs=first_batch(valid, "valid"),
        model_name=type(unwrapped(model)[0]).__name__ if isinstance(model, nn.Module) else "",
        data_name="given as objects",
        notes=notes,
    )


def baselines_note(recipe: Recipe) -> str:
    """One line: what the baselines cost, and how to leave them out; empty where they cost no training."""
    if "one_shot" not in recipe.baselines or recipe.build_solver().instant:
        return ""
    return (
        f"baseline: one-shot pruning is retrained for {recipe.epochs:g} epochs after the run's own {recipe.epochs:g}, "
        "to show what the solver gains; `baselines: []` in the recipe leaves it out"
    )


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    on_progress: Report | None = None,
    data_dir: str | Path | None = None,
    keep_checkpoint: bool = False,
    write: saving.Writer = saving.write_bytes,
) -> Result:
    """What `secateur compress RECIPE -o OUT` does: load by name, compress with checkpoints, write the files.

    Killed at any point and called again with `resume`, it ends in the same bytes.
    """
    out = Path(out)
    with saving.locked(out), _resumable(out / "checkpoint"):
        asked = by_name(recipe, data_dir)
        if not resume and any((out / "checkpoint").glob("*.safetensors")):
            raise UsageError(
                f"{out}: holds the checkpoint of an unfinished run; go on with --resume, or choose another folder, or "
                f"remove {out / 'checkpoint'} to start again"
            )
        key = recipe.to_yaml(data_shape=[list(first_tensor(asked.inputs).shape[1:])])
        ledger = Ledger(out / "checkpoint", key, recipe.training.checkpoint_seconds, write, resume)
        result = _compress(asked, recipe, ledger, on_progress, out, write)
        write(out / "report.json", saving.to_json(result.report))
        write_page(out, result.report, write)
        if not keep_checkpoint:
            ledger.remove()
    return result


def load(folder: str | Path, model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """The compressed network of a finished run as a plain module in eval mode. No pickle, no code that a file names.

    Args:
        folder: with `surgery.json` and `model.safetensors`.
        model: a fresh instance of the original network (copied, not changed); needed unless the run was made from a
            model of `secateur.zoo`.
        trust: import and call what `surgery.json` names as the model, whatever it is.
    Raises:
        UsageError: not the folder of a finished run, or `model` is needed. FormatError: a file in it is damaged.
    """
    return written.rebuild(Path(folder), model, trust)


def load_data(name: str, data_dir: str | Path | None = None, batch_size: int | None = None) -> Splits:
    """The splits of a data set by name or import path."""
    from secateur import data

    return data.load(name, data_dir, batch_size=None if data.is_path(name) else batch_size)


def whole_split(splits: Splits, name: str) -> tuple[list[Any], Any]:
    """All inputs (a list, one array per network input) and targets of a split as NumPy arrays."""
    part = getattr(splits, name)
    if part is None:
        part = splits.valid
    inputs, targets = [], []
    for x, y in part:
        inputs.append(tensors(x))
        targets.append(y)
    columns = [torch.cat(parts).numpy() for parts in zip(*inputs, strict=True)]
    return columns, torch.cat(targets).numpy()


def real_inputs(names: Sequence[str], splits: Splits, example: graph.Example, at_most: int) -> dict[str, Any]:
    """Held-out inputs as arrays by the written graph's names: so many examples, or one call's where rows are none.

    Args:
        names: of the written graph's inputs, in its order.
    """
    if example.batched:
        arrays = [a[:at_most] for a in whole_split(splits, "test")[0]]
    else:
        held_out = splits.valid if splits.test is None else splits.test
        arrays = [t.numpy() for t in tensors(first_batch(held_out))]
    return dict(zip(record.order(names, example.inputs), arrays, strict=True))


def load_model(recipe: Recipe, data_dir: str | Path | None = None) -> nn.Module:
    """The recipe's model with its weights, in eval mode."""
    if recipe.model is None:
        raise UsageError("recipe: `model` is missing; give package.module:attribute, as secateur.zoo:lenet5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        model = written.build_model(recipe.model)
    if recipe.weights is not None:
        from secateur import zoo

        zoo.load_weights(model, recipe.weights)
    return model.eval()


def model_and_inputs(recipe: Recipe, data_dir: str | Path | None = None) -> tuple[nn.Module, Any]:
    """The recipe's model and two examples of its data, for what looks at the network alone."""
    job = make_job(by_name(recipe, data_dir), recipe, Ledger(), None)
    return job.dense, job.example_inputs


@contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """An interrupt outside the training loop says whether something was kept."""
    try:
        yield
    except KeyboardInterrupt:
        if not any(checkpoint.glob("*.safetensors")):
            raise
        raise InterruptedRun(f"{checkpoint.parent}: interrupted; --resume goes on from the last checkpoint") from None


# ---- inside ----------------------------------------------------------------------------------------------------
@dataclass
class Asked:
    """A request with everything resolved but the recipe."""

    model: nn.Module
    train: Any
    loss: Loss
    evaluate: metrics.Evaluate
    higher_is_better: bool
    example_inputs: Any
    judge: record.Judge
    inputs: Any
    model_name: str
    data_name: str
    notes: list[str]
    dynamic_batch: bool | None = None


def by_name(recipe: Recipe, data_dir: str | Path | None) -> Asked:
    if recipe.data is None:
        raise UsageError("recipe: `data` is missing; give a known set such as mnist, or package.module:function")
    model = load_model(recipe, data_dir)
    splits = load_data(recipe.data, data_dir, recipe.training.batch_size)
    example = next(iter(splits.train))
    classes = isinstance(example[1], Tensor) and not example[1].is_floating_point()
    loss: Loss = cross_entropy if classes else mse_loss
    make = metrics.accuracy if classes else lambda part: metrics.mean_loss(part, mse_loss)
    held_out = splits.test if splits.test is not None else splits.valid
    judge = record.Judge(
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


def _compress(
    asked: Asked,
    recipe: Recipe,
    ledger: Ledger,
    on_progress: Report | None,
    out: Path | None = None,
    write: saving.Writer = saving.write_bytes,
) -> Result:
    """The whole run; the network is in `out` (where given) before its record is begun."""
    seeds.keep_memory()
    job = make_job(asked, recipe, ledger, on_progress)
    check_fits(asked, job)
    n_threads = ledger.fact("threads", lambda: threads.choose(job.step_once, recipe.training.threads))
    with seeds.isolated(n_threads), interrupts.watched() as interrupted:
        job.setting.interrupted = interrupted
        ledger.fact("rehearsal", lambda: _rehearse(asked, job))
        dense = recipe.dense_training()
        if dense is not None:
            job.train_dense(*dense)
        job.settle_dense()
        job.dense_metric = ledger.fact("dense.metric", lambda: job.evaluate(job.dense))
        answer = search.solve(job)
    with seeds.isolated(n_threads):  # the training is safe in the ledger: no need to wait for a step's end
        files = answer.best.files
        recipe = recipe.resolved(*job.start.traced.free)[0]
        resolved = recipe.to_yaml(
            sites=[{"name": t.site.name, "constraint": planning.name_of(t.constraint)} for t in job.start.terms],
            versions=record.versions(),
        )
        if out is not None:
            save_network(files, resolved, asked.model_name, out, write)
            if dense is not None:  # `verify` reads its metric again
                write(out / written.DENSE, written.tensors_of(job.dense))
        facts = _facts(asked, recipe, n_threads)
        try:
            report = json.loads(json.dumps(record.build(job, answer, asked.judge, asked.inputs, facts)))
        except (InterruptedRun, EnvironmentFailure):
            raise
        except KeyboardInterrupt:
            if out is not None:
                raise  # the folder's checkpoint goes on from here
            kept = save_network(files, resolved, asked.model_name, Path(tempfile.mkdtemp(prefix="secateur-")))
            raise InterruptedRun(
                f"interrupted while the finished network was compared and timed; it is saved in {kept} "
                "(secateur.load rebuilds it), without a report"
            ) from None
        except Exception as e:
            where = out or save_network(files, resolved, asked.model_name, Path(tempfile.mkdtemp(prefix="secateur-")))
            raise RecordError(
                f"the network is finished and saved in {where} (secateur.load rebuilds it), but its record could not "
                f"be made: {told(e)}",
                Result(files.module, {}, files, resolved),
            ) from e
    return Result(files.module, report, files, resolved, asked.inputs, job.example_inputs)


def _facts(asked: Asked, recipe: Recipe, n_threads: int) -> dict[str, Any]:
    return {
        "model": asked.model_name,
        "data": asked.data_name,
        "seed": recipe.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.to_yaml(),
        "threads": n_threads,
        "notes": asked.notes,
    }


def _rehearse(asked: Asked, job: Job) -> bool:
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
        facts = _facts(asked, trial.recipe, 1)
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
    return True


def check_fits(asked: Asked, job: Job) -> None:
    """What would else be found only after the dense training: model, data, loss and recipe that do not go together.

    Raises:
        UsageError, ConstraintError, UnsupportedError: with the layer, or the line of the user's code.
    """
    traced = graph.trace(job.dense, job.example_inputs)
    job.terms_of(traced)
    if note := left_out_note(left_out(traced)):
        logging.getLogger("secateur").warning(note)
    if note := job.recipe.resolved(*traced.free)[1]:
        logging.getLogger("secateur").warning(note)
        asked.notes.append(note)
    first_batch(asked.train)  # says what is wrong with it
    inputs, targets = pair(next(iter(asked.train)), "train")
    with metrics.evaluating(job.dense):
        outputs = call(job.dense, inputs)
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


def _shapes(value: Any) -> str:
    """`float32 [128, 10]`, for messages."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_shapes(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_shapes(v) for v in value) + ")"
    return type(value).__name__


def make_job(asked: Asked, recipe: Recipe, ledger: Ledger, on_progress: Report | None) -> Job:
    """The job with its working copy of the model."""
    dense, said = plain(asked.model)
    check_finite(dense.eval())
    asked.notes += [f"model: {note}" for note in said]
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
        on_progress=on_progress,
    )
    return Job(recipe, setting, dense, example, tuple(recipe.limits()))


def example_of(
    model: nn.Module, train: Any, recipe: Recipe, given: Any = None, dynamic: bool | None = None
) -> graph.Example:
    """What was given in the call, else in the recipe, else examples of the training data."""
    dynamic = recipe.dynamic_batch if dynamic is None else dynamic
    given = recipe.example_inputs if given is None else given
    if given is None:
        return graph.settle(model, first_batch(train), dynamic, cut=2)
    return graph.settle(model, named_inputs.read(given) if isinstance(given, str) else given, dynamic)


def resolve(
    given: Recipe | Mapping[str, Any] | str | Path | None, budget: Mapping[str, Any] | None, seed: int | None
) -> Recipe:
    """The recipe from any of its forms, with the budget and the seed of the call."""
    if given is None:
        given = {}
    if isinstance(given, Mapping):
        given = Recipe.from_dict(given)
    elif not isinstance(given, Recipe):
        given = Recipe.from_file(given)
    changes: dict[str, Any] = {}
    if budget is not None:
        changes["budget"] = dict(budget)
    if seed is not None:
        changes["seed"] = seed
    return given.replace(**changes) if changes else given


def _count(batches: Any) -> int:
    known = getattr(batches, "n_examples", None)
    return int(known) if known is not None else sum(example_count(y, x) for x, y in (pair(b, "valid") for b in batches))
