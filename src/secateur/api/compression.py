"""`compress`, `load`, and `run` for the command line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from secateur.api.asked import Asked, Loss, by_name, by_objects, make_job
from secateur.api.rehearsal import check_fits, facts_of, rehearse
from secateur.api.result import Result, save_network, write_page
from secateur.errors import EnvironmentFailure, InterruptedRun, RecordError, UsageError
from secateur.export import written
from secateur.export.rebuild import at_level, dense_net, rebuild, surgery_of
from secateur.proof import record
from secateur.recipe import Recipe
from secateur.report import progress
from secateur.run import search, stages
from secateur.run.job import Job, Warm
from secateur.shell import interrupts, saving
from secateur.shell.importing import told
from secateur.training import seeds, threads
from secateur.training.batches import first_tensor
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Report, weights_of

_FROM_SCRATCH = "from scratch: the run and its one-shot baseline began with the weights that the model came with"
_UNTRAINED = (
    "no dense net was trained: what the report calls dense are those very weights, and says nothing of accuracy"
)


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
    teacher: nn.Module | None = None,
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
        teacher: whom the objective `distillation` listens to, a module with outputs like the model's; default: the
            dense net itself.
        seed: overrides the recipe's seed.
        on_progress: None shows a bar with rate and time left on a terminal (stderr) and a line in a notebook; elsewhere
            each training is one line of the logger `secateur` at INFO, which Python shows only where it is asked to
            (`logging.basicConfig(level="INFO")`). False is silence. A callable gets `secateur.types.Progress` events.
    Raises:
        BudgetError: the budget cannot be met (with the nearest reachable value). UsageError, ConstraintError,
        UnsupportedError: see the message. DivergedError: the loss became NaN. InterruptedRun: Ctrl-C; a call has no
        folder to keep its work in, a recipe's run (`secateur compress RECIPE -o DIR`) can be resumed.
    """
    resolved = Recipe.of(recipe, budget, seed)
    asked = by_objects(model, train, loss, evaluate, valid, higher_is_better, example_inputs, dynamic_batch)
    asked.teacher = teacher
    with progress.shown(on_progress, baselines_note(resolved)) as report:
        return _compress(asked, resolved, Ledger(), report)


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
    after: Path | None = None,
    warm: bool = True,
) -> Result:
    """What `secateur compress RECIPE -o OUT` does: load by name, compress with checkpoints, write the files.

    Killed at any point and called again with `resume`, it ends in the same bytes.

    Args:
        after: the folder of a finished run of the same model and data, under looser limits; its dense net is taken.
        warm: start from its answer too, where the sets allow it.
    """
    out = Path(out)
    with saving.locked(out), _resumable(out / "checkpoint"):
        asked = by_name(recipe, data_dir)
        if not resume and any((out / "checkpoint").glob("*.safetensors")):
            raise UsageError(
                f"{out}: holds the checkpoint of an unfinished run; go on with --resume, or choose another folder, or "
                f"remove {out / 'checkpoint'} to start again"
            )
        start = {} if after is None else {"after": after.name, "warm": warm}  # another start is another run
        key = recipe.to_yaml(data_shape=[list(first_tensor(asked.inputs).shape[1:])], **start)
        ledger = Ledger(out / "checkpoint", key, recipe.training.checkpoint_seconds, write, resume)
        result = _compress(asked, recipe, ledger, on_progress, out, write, (after, warm))
        write(out / "report.json", saving.to_json(result.report))
        write_page(out, result.report, write)
        if not keep_checkpoint:
            ledger.remove()
    return result


def load(folder: str | Path, model: nn.Module | None = None, *, trust: bool = False, level: int = 0) -> nn.Module:
    """The compressed network of a finished run as a plain module in eval mode. No pickle, no code that a file names.

    Args:
        folder: with `surgery.json` and `model.safetensors`.
        model: a fresh instance of the original network (copied, not changed); needed unless the run was made from a
            model of `secateur.zoo`.
        trust: import and call what `surgery.json` names as the model, whatever it is.
        level: of a net of several levels, 0 (the loosest) on.
    Raises:
        UsageError: not the folder of a finished run, or `model` is needed, or there is no such level. FormatError: a
        file in it is damaged. UnsupportedError: a tighter level of a net with recurrent cells.
    """
    module, file = rebuild(Path(folder), model, trust), Path(folder) / written.LEVEL.format(level)
    if level == 0:
        return module
    if not file.is_file():
        raise UsageError(f"{folder}: there is no level {level}, {file.name} is missing")
    return at_level(module, file.read_bytes())


@contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """An interrupt outside the training loop says whether something was kept."""
    try:
        yield
    except KeyboardInterrupt:
        if not any(checkpoint.glob("*.safetensors")):
            raise
        raise InterruptedRun(f"{checkpoint.parent}: interrupted; --resume goes on from the last checkpoint") from None


def _go_on(job: Job, after: Path, asked: Asked, trained: bool, warm: bool) -> None:
    """From a finished run: its dense net, and its answer where that can be a start."""
    if trained:
        found = dense_net(after, job.dense, trained)
        if found is None:
            raise UsageError(f"{after}: {written.DENSE} is missing; run that point of the sweep again")
        job.dense.load_state_dict(found.state_dict())
    if not warm or job.untrained is not None:
        return
    if not search.can_go_on(job.start.terms) or job.recipe.build_activations(job.start.traced.sites):
        asked.notes.append("started from the dense net, as the sets or their levels ask for, not from the run before")
        return
    job.warm = Warm(rebuild(after, asked.model), tuple(dict(cut) for cut in surgery_of(after)))
    asked.notes.append(f"started from the answer of {after.name}")


def _compress(
    asked: Asked,
    recipe: Recipe,
    ledger: Ledger,
    on_progress: Report | None,
    out: Path | None = None,
    write: saving.Writer = saving.write_bytes,
    follows: tuple[Path | None, bool] = (None, False),
) -> Result:
    """The whole run; the network is in `out` (where given) before its record is begun."""
    seeds.keep_memory()
    job = make_job(asked, recipe, ledger, on_progress)
    check_fits(asked, job)
    n_threads = ledger.fact("threads", lambda: threads.choose(lambda: stages.step_once(job), recipe.training.threads))
    with seeds.isolated(n_threads), interrupts.watched() as interrupted:
        job.setting.interrupted = interrupted
        ledger.fact("rehearsal", lambda: rehearse(asked, job))
        dense = recipe.dense_training()
        after, warm = follows
        if recipe.from_scratch:
            job.untrained = weights_of(job.dense)
            asked.notes.append(_FROM_SCRATCH if recipe.dense_is_trained else f"{_FROM_SCRATCH}; {_UNTRAINED}")
        if after is not None:
            _go_on(job, after, asked, trained=dense is not None, warm=warm)
        elif dense is not None:
            stages.train_dense(job, *dense)
        stages.settle_dense(job)
        job.dense_metric = ledger.fact("dense.metric", lambda: job.evaluate(job.dense))
        answer = search.solve(job)
    with seeds.isolated(n_threads):  # the training is safe in the ledger: no need to wait for a step's end
        files = answer.best.files
        recipe = recipe.resolved(*job.start.traced.free)[0]
        resolved = recipe.to_yaml(
            sites=[{"name": t.site.name, "constraint": t.constraint.name} for t in job.start.terms],
            versions=record.versions(),
        )
        if out is not None:
            save_network(files, resolved, asked.model_name, out, write)
            if dense is not None:  # `verify` reads its metric again
                write(out / written.DENSE, written.tensors_of(job.dense))
        facts = facts_of(asked, recipe, n_threads)
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
