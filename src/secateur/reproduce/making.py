"""Makes the net of one cell: trained from scratch, or compressed from the net that it starts from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.reproduce.cost import PLAIN, Watch
from secateur.reproduce.grid import Cell
from secateur.reproduce.kinds import Kind
from secateur.shell import saving
from secateur.types import Progress

if TYPE_CHECKING:
    from torch import nn

    from secateur.data.spec import Splits
    from secateur.export.written import Written
    from secateur.recipe import Training

Report = Callable[[Progress], None]
Json = dict[str, Any]
_PLAIN_STEPS = 40


@dataclass(frozen=True)
class Maker:
    """What all cells of one seed share; `folder` holds one folder a cell."""

    kind: Kind
    splits: Splits
    cells: dict[str, Cell]
    seed: int
    folder: Path
    on_progress: Report | None = None
    costs: bool = False  # beside plain training, of every compression
    verified: bool = False  # is every compressed net's folder checked as `secateur verify` does?

    def make(self, cell: Cell, resume: bool) -> Json:
        """Train or compress, write the files, and say what came out."""
        began = time.monotonic()
        facts = self._train(cell, resume) if cell.start is None else self._compress(cell)
        return {"seconds": time.monotonic() - began, **facts, "made": provenance()}

    def model(self, cell: Cell) -> nn.Module:
        """The net of a finished cell, rebuilt from its files."""
        from secateur import api, zoo
        from secateur.export import rebuild

        if cell.start is not None:
            return api.load(self.folder / cell.name, self.model(self.cells[cell.start]))
        model = rebuild.build_model(cell.plan["model"])
        zoo.load_weights(model, self.folder / cell.name / "model.safetensors")
        return model.eval()

    def _train(self, cell: Cell, resume: bool) -> Json:
        from torch import contiguous_format, manual_seed

        from secateur.export import rebuild, written
        from secateur.objectives.task import Task
        from secateur.recipe import Training
        from secateur.shell import interrupts
        from secateur.training import seeds
        from secateur.training.batches import source
        from secateur.training.checkpoint import Ledger
        from secateur.training.loop import Setting, Stage, train
        from secateur.training.phases import Phase

        plan, folder = cell.plan, self.folder / cell.name
        ledger = Ledger(folder / "checkpoint", json.dumps([self.seed, plan]), resume=resume)
        training = Training.model_validate(plan["training"])
        threads = training.threads if isinstance(training.threads, int) else None
        with seeds.isolated(threads), interrupts.watched() as interrupted:
            manual_seed(seeds.derive(self.seed, cell.name, "weights"))
            model = channels_innermost(rebuild.build_model(plan["model"]))
            setting = Setting(
                model=model,
                batches=source(_batched(self.splits.train, training.batch_size)),
                loss=self.kind.loss(),
                evaluate=self.kind.judge(self.splits.valid),
                higher_is_better=self.kind.higher_is_better,
                seed=self.seed,
                ledger=ledger,
                on_progress=self._progress(cell),
                interrupted=interrupted,
            )
            phase = Phase(setting.params, round(plan["epochs"] * len(setting.batches)))
            outcome = train(setting, Stage(cell.name, phase, training, [Task()]))
        model.eval().to(memory_format=contiguous_format)  # type: ignore[call-overload]
        files = self._write(model, folder)
        # The net itself, not the one that `write` may have cut: others start from it.
        saving.write_bytes(folder / "model.safetensors", written.tensors_of(model))
        ledger.remove()
        return {"valid": outcome.metric, "epochs": plan["epochs"], **counts(model), "nbytes": len(files.sct)}

    def restore(self, cell: Cell) -> None:
        """`model.onnx`, of a net of which only the packed file or the weights (trained from scratch) were kept."""
        from secateur import formats

        folder = self.folder / cell.name
        file, packed = folder / "model.onnx", folder / "model.sct"
        if file.is_file():
            return
        if packed.is_file():
            saving.write_bytes(file, formats.unpack(packed.read_bytes()))
        elif cell.start is None:
            self._write(self.model(cell), folder)

    def _write(self, model: nn.Module, folder: Path) -> Written:
        """`model.onnx` and `model.sct`."""
        from secateur import graph
        from secateur.export import written

        example = graph.settle(model, next(iter(self.splits.train))[0], cut=2)
        files = written.write(model, graph.trace(model, example), example)
        saving.make_folder(folder)
        for name, content in (("model.onnx", files.onnx), ("model.sct", files.sct)):
            saving.write_bytes(folder / name, content)
        return files

    def _compress(self, cell: Cell) -> Json:
        from secateur import api
        from secateur.recipe import Recipe

        assert cell.start is not None
        recipe = {"baselines": [], "bench": {"against": [], "seconds": 0.1}, **cell.plan["recipe"]}
        asked = Recipe.from_dict(recipe)
        model = channels_innermost(self.model(self.cells[cell.start]))
        train = _batched(self.splits.train, asked.training.batch_size)
        tell = self._progress(cell)
        watch = Watch(len(train), tell) if self.costs else None
        result = api.compress(
            model,
            train,
            valid=self.splits.valid,
            loss=self.kind.loss(),
            evaluate=self.kind.select(self.splits.valid),
            higher_is_better=False,
            recipe=asked,
            teacher=None if cell.teacher is None else self.model(self.cells[cell.teacher]),
            seed=self.seed,
            on_progress=watch or tell or False,
        )
        result.save(self.folder / cell.name)
        report = result.report
        cost = {} if watch is None else {"cost": {**watch.facts(), **self._plain(model, train, asked.training)}}
        # The solver's own word: a run that has no baseline puts nothing in its answer's place.
        outcomes = [s["outcome"] for s in report["stages"] if s["name"].startswith("main.") and "outcome" in s]
        checks = result.verify(evaluate=self.kind.select(self.splits.valid))["checks"] if self.verified else []
        return {
            **({"failed_checks": [c["name"] for c in checks if c["passed"] is False]} if self.verified else {}),
            "valid": self.kind.judge(self.splits.valid)(result.model),
            "valid_loss": report["compressed"]["metric_valid"],
            "epochs": asked.epochs,
            **counts(result.model),
            "nbytes": report["compressed"]["nbytes"],
            "outcome": outcomes[-1] if outcomes else report["outcome"],
            **cost,
            "layers": [{k: x.get(k) for k in ("name", "shape", "nnz", "n_values", "nbytes")} for x in report["layers"]],
        }

    def _plain(self, model: nn.Module, train: Any, training: Training) -> Json:
        """What some steps of plain training cost, and judging them, under the same settings."""
        from secateur.graph.copying import copied
        from secateur.objectives.task import Task
        from secateur.training import seeds
        from secateur.training.batches import source
        from secateur.training.checkpoint import Ledger
        from secateur.training.loop import Setting, Stage
        from secateur.training.loop import train as trained
        from secateur.training.phases import Phase

        watch, loss, judge = Watch(len(train)), self.kind.loss(), self.kind.select(self.splits.valid)
        threads = training.threads if isinstance(training.threads, int) else None
        with seeds.isolated(threads):
            setting = Setting(copied(model), source(train), loss, judge, False, self.seed, Ledger(), None, watch)
            watch.begin()
            trained(setting, Stage(PLAIN, Phase(setting.params, _PLAIN_STEPS), training, [Task()]))
            watch.end()
        return {f"plain_{key}": value for key, value in watch.facts().items() if key != "before_seconds"}

    def _progress(self, cell: Cell) -> Report | None:
        tell = self.on_progress
        if tell is None:
            return None
        return lambda p: tell(dataclasses.replace(p, stage=f"seed {self.seed} {cell.name} {p.stage}"))


def channels_innermost(model: nn.Module) -> nn.Module:
    """The model with its convolutions' weights in that order of memory.

    33 ms a step of LeNet-5 instead of 53 (one thread, batch 128, EPYC), 11 of the separable net instead of 22 (Xeon).
    """
    from torch import channels_last

    if all(p.dim() <= 4 for p in model.parameters()):
        model.to(memory_format=channels_last)  # type: ignore[call-overload]
    return model


def counts(model: nn.Module) -> Json:
    """Nonzero weights (tensors of two or more axes) and biases that are left, counted in the net itself."""
    params = list(model.parameters())
    return {
        "nnz": sum(int(p.count_nonzero()) for p in params if p.dim() > 1),
        "n_biases": sum(p.numel() for p in params if p.dim() <= 1),
    }


def provenance() -> Json:
    """When, on what machine and by which code: the date, the CPU, the kernels' ISA, versions, the commit if known."""
    from secateur import engine
    from secateur.native import _native
    from secateur.proof import record

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _native.cpu_name(),
        "isa": os.environ.get("SECATEUR_ISA") or engine.isas()[-1],
        "versions": record.versions(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Of the checkout that this code lies in; `+` where it differs from it. None for an installed package."""
    ours = _git("ls-files", "--error-unmatch", Path(__file__).name)
    return (_git("describe", "--always", "--abbrev=9", "--dirty=+", "--exclude=*") or None) if ours else None


def _git(*command: str) -> str:
    """What git says in this folder; nothing where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *command], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _batched(train: Any, batch_size: int) -> Any:
    return train.batched(batch_size) if hasattr(train, "batched") else train
