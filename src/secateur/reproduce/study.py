"""Runs a study: its parts for each seed, the test split once at the end, everything kept so that it can go on later.

A folder holds `seed<N>/<part>/` with the written net and `part.json`, and the study's `<name>.json` and `<name>.md`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from secateur.errors import FormatError, UsageError
from secateur.shell import runtimes, saving
from secateur.types import Progress

if TYPE_CHECKING:
    from torch import nn

Report = Callable[[Progress], None]
Json = dict[str, Any]
_SPEED_INPUTS = 64  # real test images in rotation
_SPEED_SECONDS = 2.0  # for each runtime and model


def names() -> dict[str, str]:
    """Name -> one line, for every YAML file of this folder."""
    return {p.stem: str(_read(p)["about"]) for p in sorted(Path(__file__).parent.glob("*.yaml"))}


def run(
    name: str,
    seed: int | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    on_progress: Report | None = None,
    data_dir: str | Path | None = None,
) -> Json:
    """Rerun a result; writes `<name>.json` and `<name>.md` into `out` and returns the record.

    Args:
        name: one of `names()`.
        seed: one seed only; default: all of the study's.
        resume: keep the parts that are finished in `out`. A part is repeated when its recipe has changed, with
            everything that starts from it.
    Raises:
        UsageError: unknown name; the folder is in use.
    """
    known = names()
    if name not in known:
        raise UsageError(f"reproduce: {name!r} is unknown; known: {', '.join(known) or 'none'}")
    out = Path(out)
    study = Study(name, _read(Path(__file__).with_name(f"{name}.yaml")), out, data_dir, on_progress)
    seeds = study.plan["seeds"] if seed is None else [seed]
    record = study.record({s: study.one_seed(s, resume) for s in seeds})
    from secateur.reproduce.table import table

    saving.write_bytes(out / f"{name}.json", saving.to_json(record))
    saving.write_bytes(out / f"{name}.md", (table(record, markdown=True) + "\n").encode())
    return record


@dataclass
class Study:
    """One study in one folder. `plan` is the YAML file's content."""

    name: str
    plan: Json
    out: Path
    data_dir: str | Path | None = None
    on_progress: Report | None = None

    @cached_property
    def splits(self) -> Any:
        """The data: training, validation and test part."""
        from secateur import data

        return data.load(self.plan["data"], self.data_dir)

    def one_seed(self, seed: int, resume: bool, finished_only: bool = False) -> Json:
        """All parts of one seed, then the test split and the timing. Finished parts are read back.

        With `finished_only` nothing is trained: parts that are not there are left out of the record.
        """
        folder = self.out / f"seed{seed}"
        with saving.locked(folder):
            parts: dict[str, Json] = {}
            renewed: set[str] = set()
            for part, plan in self.plan["parts"].items():
                kept = _kept(folder / part, plan) if resume and plan.get("from") not in renewed else None
                if kept is None and finished_only:
                    renewed.add(part)  # what starts from it is stale
                    continue
                if kept is None:
                    renewed.add(part)
                    began = time.monotonic()
                    facts = self._train(seed, part, resume) if "model" in plan else self._compress(seed, part)
                    kept = {"plan": plan, "seconds": time.monotonic() - began, **facts}
                    saving.write_bytes(folder / part / "part.json", saving.to_json(kept))
                parts[part] = kept
            # Only now: everything above was chosen on the validation split.
            done: Json = {
                p: {**f, **self._remember(folder / p / "test.json", p in renewed, self._test)} for p, f in parts.items()
            }
            speed = self._remember(folder / "speed.json", bool(renewed & parts.keys()), self._speed)
        return {"parts": {p: {k: v for k, v in f.items() if k != "plan"} for p, f in done.items()}, "speed": speed}

    # ---- parts -------------------------------------------------------------------------------------------------
    def _train(self, seed: int, part: str, resume: bool) -> Json:
        """Train a net from scratch and write it."""
        from torch import channels_last, contiguous_format, manual_seed
        from torch.nn.functional import cross_entropy

        from secateur import graph
        from secateur.export import rebuild, written
        from secateur.objectives.task import Task
        from secateur.recipe import Training
        from secateur.shell import interrupts
        from secateur.training import metrics, seeds
        from secateur.training.batches import source
        from secateur.training.checkpoint import Ledger
        from secateur.training.loop import Setting, Stage, train
        from secateur.training.phases import Phase

        plan, folder = self.plan["parts"][part], self._folder(seed, part)
        ledger = Ledger(folder / "checkpoint", json.dumps([seed, plan]), resume=resume)
        training = Training.model_validate(plan["training"])
        threads = training.threads if isinstance(training.threads, int) else None
        with seeds.isolated(threads), interrupts.watched() as interrupted:
            manual_seed(seeds.derive(seed, part, "weights"))
            # Channels innermost: 33 ms a step of LeNet-5 instead of 53 (one thread, batch 128, EPYC).
            model = rebuild.build_model(plan["model"]).to(memory_format=channels_last)  # type: ignore[call-overload]
            setting = Setting(
                model=model,
                batches=source(self.splits.train),
                loss=cross_entropy,
                evaluate=metrics.accuracy(self.splits.valid),
                higher_is_better=True,
                seed=seed,
                ledger=ledger,
                on_progress=self._progress(seed, part),
                interrupted=interrupted,
            )
            phase = Phase(setting.params, round(plan["epochs"] * len(setting.batches)))
            outcome = train(setting, Stage(part, phase, training, [Task()]))
        model.eval().to(memory_format=contiguous_format)  # type: ignore[call-overload]
        example = self.splits.train.batch(0)[0][:2]
        files = written.write(model, graph.trace(model, example), graph.settle(model, example))
        saving.make_folder(folder)
        for name, content in (("model.onnx", files.onnx), ("model.sct", files.sct)):
            saving.write_bytes(folder / name, content)
        # The net itself, not the one that `write` may have cut: parts start from it.
        saving.write_bytes(folder / "model.safetensors", written.Written(model, b"", b"", []).tensors)
        ledger.remove()
        return {"valid": outcome.metric, "epochs": plan["epochs"], **_counts(model), "nbytes": len(files.sct)}

    def _compress(self, seed: int, part: str) -> Json:
        """Compress the net of the part it starts from, under its recipe."""
        from torch.nn.functional import cross_entropy

        from secateur import api
        from secateur.training import metrics

        plan = self.plan["parts"][part]
        start = self._model(seed, plan["from"])
        # The epoch that is kept is chosen by the loss: accuracy on 5,000 examples has a standard error of 0.13 points
        # and would often pick an early, half-trained epoch.
        loss = metrics.mean_loss(self.splits.valid, cross_entropy)
        recipe = {"baselines": [], "bench": {"against": [], "seconds": 0.1}, **plan["recipe"]}
        result = api.compress(
            start,
            self.splits.train,
            valid=self.splits.valid,
            evaluate=loss,
            higher_is_better=False,
            recipe=recipe,
            seed=seed,
            on_progress=self._progress(seed, part),
        )
        result.save(self._folder(seed, part))
        report = result.report
        return {
            "valid": metrics.accuracy(self.splits.valid)(result.model),
            "valid_loss": report["compressed"]["metric_valid"],
            "epochs": float(plan["recipe"]["solver"]["epochs"]),
            **_counts(result.model),
            "nbytes": report["compressed"]["nbytes"],
            "outcome": report["outcome"],
            "layers": [{k: x.get(k) for k in ("name", "shape", "nnz", "n_values", "nbytes")} for x in report["layers"]],
            "cpu": report["cpu"],
            "versions": report["versions"],
        }

    def _model(self, seed: int, part: str) -> nn.Module:
        """The net of a finished part, rebuilt from its files."""
        from secateur import api, zoo
        from secateur.export import rebuild

        plan, folder = self.plan["parts"][part], self._folder(seed, part)
        if "model" in plan:
            model = rebuild.build_model(plan["model"])
            zoo.load_weights(model, folder / "model.safetensors")
            return model.eval()
        return api.load(folder, self._model(seed, plan["from"]))

    # ---- after everything was chosen -----------------------------------------------------------------------------
    def _test(self, folder: Path) -> Json:
        """Accuracy of the written `.sct` file in the engine, and of `model.onnx` in ONNX Runtime, on the test split."""
        import numpy as np

        from secateur.engine import InferenceSession

        x, y = (t.numpy() for t in (self.splits.test.inputs, self.splits.test.targets))
        engine = _scores(InferenceSession(folder / "model.sct"), x).argmax(1)
        found: Json = {"test": float((engine == y).mean()), "n_test": len(y), "same_as_onnxruntime": None}
        try:
            ort = runtimes.onnxruntime()
        except ImportError:
            return found
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        peer = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        same = _scores(peer, x).argmax(1) == engine
        return {**found, "same_as_onnxruntime": int(np.count_nonzero(same))}

    def _speed(self, path: Path) -> Json:
        """Batch 1, one thread, interleaved: the packed net and the control beside the dense net."""
        from secateur.engine.bench import bench

        asked, folder = self.plan.get("speed"), path.parent
        if not asked or not (folder / asked["dense"] / "model.onnx").is_file():
            return {}
        x = self.splits.test.inputs[:_SPEED_INPUTS].numpy()
        found: Json = {}
        for key in ("part", "control"):
            if not (folder / asked[key] / "model.sct").is_file():
                continue
            timed = bench(
                folder / asked[key] / "model.sct",
                against=("onnxruntime", "openvino"),
                inputs=x,
                dense=folder / asked["dense"] / "model.onnx",
                seconds=asked.get("seconds", _SPEED_SECONDS),
            )
            found[asked[key]] = {k: timed[k] for k in ("latency_ms", "ratios", "skipped", "cpu", "isa", "threads")}
        return found

    def _remember(self, path: Path, anew: bool, make: Callable[[Path], Json]) -> Json:
        if not anew and path.is_file():
            return dict(read_json(path))
        made = make(path.parent if path.name == "test.json" else path)
        saving.write_bytes(path, saving.to_json(made))
        return made

    # ---- the record ----------------------------------------------------------------------------------------------
    def record(self, seeds: Mapping[int, Json]) -> Json:
        """Mean and spread over the seeds, the claims, and where the figures come from."""
        import secateur

        runs = {p: [s["parts"][p] for s in seeds.values() if p in s["parts"]] for p in self.plan["parts"]}
        parts = {p: {"title": self.plan["parts"][p]["title"], **_summary(found)} for p, found in runs.items() if found}
        facts = [f for s in seeds.values() for f in s["parts"].values() if "cpu" in f]
        return {
            "schema": 1,
            "name": self.name,
            "about": self.plan["about"],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "secateur": secateur.__version__,
            "machine": {"arch": platform.machine(), "system": platform.system(), **(facts[0]["cpu"] if facts else {})},
            "versions": facts[0]["versions"] if facts else {},
            "command": f"secateur reproduce {self.name}",
            "n_weights": self.plan["n_weights"],
            "claims": [_claim(c, parts[c["part"]]) for c in self.plan["claims"] if c["part"] in parts],
            "parts": parts,
            "seeds": {str(s): found for s, found in seeds.items()},
            "plan": self.plan,
        }

    def _folder(self, seed: int, part: str) -> Path:
        return self.out / f"seed{seed}" / part

    def _progress(self, seed: int, part: str) -> Report | None:
        tell = self.on_progress
        if tell is None:
            return None
        return lambda p: tell(dataclasses.replace(p, stage=f"seed {seed} {part} {p.stage}"))


def _read(path: Path) -> Json:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def read_json(path: Path) -> Any:
    """The content of a file that a run wrote.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise FormatError(f"{path}: cannot be read as JSON ({e}); delete it and run again") from None


def _kept(folder: Path, plan: Json) -> Json | None:
    """The facts of a finished part with this very plan."""
    path = folder / "part.json"
    if not path.is_file():
        return None
    facts = dict(read_json(path))
    return facts if facts["plan"] == plan else None


def _counts(model: nn.Module) -> Json:
    """Nonzero weights (tensors of two or more axes) and biases that are left, counted in the net itself."""
    params = list(model.parameters())
    return {
        "nnz": sum(int(p.count_nonzero()) for p in params if p.dim() > 1),
        "n_biases": sum(p.numel() for p in params if p.dim() <= 1),
    }


def _scores(session: Any, x: Any) -> Any:
    import numpy as np

    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)])


def _summary(runs: list[Json]) -> Json:
    """Per figure: mean, standard deviation over the seeds (0 for one), smallest, largest."""
    out: Json = {"n_seeds": len(runs)}
    for key in ("test", "valid", "nnz", "n_biases", "nbytes", "seconds", "epochs"):
        values = [float(r[key]) for r in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        out[key] = {"mean": statistics.fmean(values), "sd": spread, "min": min(values), "max": max(values)}
    same = [r["same_as_onnxruntime"] for r in runs]
    out["same_as_onnxruntime"] = None if None in same else min(same)
    out["n_test"] = runs[0]["n_test"]
    return out


def _claim(claim: Json, part: Json) -> Json:
    """Met when the mean test accuracy reaches the claim and no seed is larger than claimed."""
    sizes = {k: {"asked": v, "worst": part[k]["max"]} for k, v in claim.items() if k in ("nnz", "nbytes")}
    met = part["test"]["mean"] >= claim["accuracy"] and all(s["worst"] <= s["asked"] for s in sizes.values())
    return {**claim, "test": part["test"], "sizes": sizes, "met": met}
