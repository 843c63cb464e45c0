"""The run's record (report.json, schema 1): what was measured, on which machine, from which bytes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

import secateur
from secateur import formats
from secateur.budget import kinds
from secateur.engine import InferenceSession
from secateur.engine.inspect import inspect
from secateur.export import membership, norms, stored, written
from secateur.export.membership import Asked
from secateur.export.written import Written
from secateur.graph import counts
from secateur.graph.counts import channels_note, left_out, left_out_note
from secateur.proof import levels
from secateur.proof.agreement import outputs_agree
from secateur.proof.judge import Flat, Judge, Session, feeds
from secateur.proof.readings import PREDICTED
from secateur.run import activations
from secateur.run.job import Job
from secateur.run.net import Candidate, Net
from secateur.shell import runtimes, waiting
from secateur.shell.importing import told
from secateur.training.batches import call, constants
from secateur.training.metrics import evaluating

if TYPE_CHECKING:
    from secateur.run.search import Answer

Array = np.ndarray[Any, Any]
_LEVELS = (
    "{} levels share one set of weights and were trained together after the run's own training, so that the loosest "
    "one is not what it was before; batch-norm statistics are measured for each"
)
_UNSPENT = 0.05  # more of a limit than this is not left over without a reason
_HISTORY = 400  # rows kept of the training curves
_VERSIONS = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "safetensors")


def build(job: Job, answer: Answer, judge: Judge, inputs: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The whole record.

    Args:
        inputs: some real inputs (up to 256 examples) for the comparison of runtimes and for the timing.
        facts: model, data, seed, threads, recipe text, notes, date.
    """
    best, baseline = answer.best, answer.one_shot
    dense_net, dense = job.start, job.dense_files
    record: dict[str, Any] = {
        "schema": 1,
        **{k: facts[k] for k in ("model", "data", "seed", "date", "recipe")},
        "versions": versions(),
        "outcome": best.outcome,
        "dense": {
            **_column(judge, dense, dense_net),
            "nbytes": len(dense.onnx),
            "nbytes_sct": len(dense.sct),
            "metric_valid": job.dense_metric,
            **({} if job.recipe.dense_is_trained else {"trained": False}),
        },
        "one_shot_raw": None,
        "one_shot": None,
        "compressed": _answer_column(job, judge, best),
        "budget": _budget(job, best),
        "layers": _layers(best, dense_net),
        "inputs": _inputs(best.files.sct),
        "terms": _terms(job, best),
        "activations": activations.record(best.files.module, best.net.activations),
        "absent": list(stored.find(best.files.onnx, best.files.arrays).absent),
        "left_out": left_out(dense_net.traced),
        "sections": [{"name": s.name, "kind": s.kind, "nbytes": s.nbytes} for s in formats.sections(best.files.sct)],
        "stages": [{k: v for k, v in s.items() if k != "curve"} for s in job.stages],
        "history": _history(job.stages),
        "frontier": [dict(p) for p in answer.frontier],
        "notes": _notes(job, answer, inputs, facts["notes"]),
    }
    if baseline is not None:
        if "one_shot" in job.recipe.baselines:
            record["one_shot"] = _answer_column(job, judge, baseline)
        record["one_shot_raw"] = _raw_column(baseline, record["dense"]["metric"])
    job.pulse("comparison", last=True)
    record["verify"] = _verified(job, best, judge, inputs)
    if record["verify"]["metric_engine"] is not None:
        record["compressed"]["metric"]["value"] = record["verify"]["metric_engine"]
    record["levels"] = levels.record(job, best, judge, inputs, _only_batch(job, best.files))
    job.pulse("timing", last=True)
    timed = job.setting.ledger.fact("bench", lambda: _latencies(job, dense, answer, inputs))
    for column, times in timed["latency_ms"].items():
        if record[column] is not None:
            record[column]["latency_ms"] = times
    for row, times in zip(record["levels"], timed["levels"], strict=True):
        row["latency_ms"] = times
    bench = record["bench"] = dict(timed["bench"])
    columns = {"model": "compressed", "dense": "dense"}
    record["coverage"] = {columns[k]: v for k, v in bench.pop("coverage").items() if k in columns}
    where = {"name": bench["cpu"], "isa": bench["isa"]}
    record["cpu"] = where | {"threads": facts["threads"], "waiting": waiting.told()}
    return record


def _notes(job: Job, answer: Answer, inputs: Any, given: Sequence[str]) -> list[str]:
    """What a reader has to know beside the numbers."""
    net = answer.best.net
    return [
        *given,
        *_constant_notes(inputs),
        *_batch_notes(job),
        *filter(None, [left_out_note(left_out(job.start.traced)), channels_note(job.start.terms, job.start.traced)]),
        *([norms.SHORT] if net.short else []),
        *([_LEVELS.format(len(answer.best.points))] if answer.best.points else []),
        *([activations.note(net.activations)] if net.activations else []),
        *filter(None, [activations.left_note(job, net)]),
        *answer.notes,
    ]


def _raw_column(baseline: Candidate, metric: Mapping[str, Any]) -> dict[str, Any]:
    """What projecting alone gives; measured on validation, one number."""
    shown = {k: v for k, v in metric.items() if k not in ("n_examples", "loss", "calibration_error")}
    return {
        "metric": {**shown, "value": baseline.raw["metric"], "split": "validation"},
        **{k: v for k, v in baseline.raw.items() if k in kinds.counted()},
    }


def _unspent_notes(job: Job, best: Candidate) -> list[str]:
    return [
        f"budget: {row['name']} <= {row['asked']:g} was met with {row['reached']:g}: {row['unspent']}"
        for row in _budget(job, best)
        if "unspent" in row
    ]


def _constant_notes(inputs: Any) -> list[str]:
    values = [v for v in constants(inputs) if v != "None"]
    return [f"inputs that are no tensors are constants of the written graph: {', '.join(values)}"] if values else []


def _batch_notes(job: Job) -> list[str]:
    rows = written.fixed_batch(job.dense_files.onnx)
    if rows is None or not job.example_inputs.batched or job.example_inputs.dynamic is False:
        return []
    return [f"the written network takes a batch of {rows}: torch's exporter cannot leave its batch axis free"]


def _column(judge: Judge, files: Written, net: Net) -> dict[str, Any]:
    return {"metric": judge.metric(files.module), **net.costs(files)}


def _answer_column(job: Job, judge: Judge, candidate: Candidate) -> dict[str, Any]:
    return {
        **_column(judge, candidate.files, candidate.net),
        "nbytes_onnx": len(candidate.files.onnx),
        "metric_valid": candidate.metric,
        "drop_valid": job.drop(candidate.metric),
    }


def _budget(job: Job, best: Candidate) -> list[dict[str, Any]]:
    reached = {**best.net.costs(best.files), kinds.DROP: job.drop(best.metric)}
    rows = []
    for x in job.limits:
        reading = dict(best.readings.get(x.kind, {}))
        got = reading.pop("value", None)
        got = reached[x.kind] if x.kind in reached else best.cost(x.kind) if got is None else got
        row = {"name": x.kind, "asked": x.value, "reached": got, "met": bool(got <= x.value + 1e-12), **reading}
        if row["met"] and reading and "runs" not in reading:
            row["met"] = PREDICTED
        if x.kind != kinds.DROP and got < (1 - _UNSPENT) * x.value:
            row["unspent"] = _why_unspent(job, x.kind, x.value)
        rows.append(row)
    return rows


def _why_unspent(job: Job, kind: str, asked: float) -> str:
    if kinds.meter(kind).on_machine:
        return "the levels keep a margin for what the machine and its table may differ by"
    dense = job.dense_cost(kind)
    if dense <= asked:
        return f"the dense network itself takes {dense:g}"
    others = [x.kind for x in job.limits if x.kind != kind]
    if others:
        return f"another limit binds: {', '.join(others)}"
    if not any(not t.given for t in job.start.terms):
        return "all levels are given, none is left to the budget"
    return "the next levels of these sets did not fit, or what they keep can no longer matter to an output"


def _layers(best: Candidate, dense: Net) -> list[dict[str, Any]]:
    """One row per parameter of the written module, whatever may act on it: the rows' counts are the net's."""
    sections = {s.name.removesuffix(".T"): s for s in formats.sections(best.files.sct)}
    acting = _acting(best)
    whole = {w.name: w.value.numel() * w.positions * w.counted for w in counts.weights(dense.module, dense.traced)}
    rows = []
    for w in counts.weights(best.files.module, best.net.traced):
        values = int(w.value[w.value != 0].unique().numel())
        row = {
            "name": w.name,
            "op": w.op,
            "shape": list(w.value.shape),
            "nnz": w.nnz,
            "n_values": values,
            "bits": float(np.log2(max(values, 1))) if 0 < values <= 256 else 32.0,
            "constraint": acting.get(w.of),
            "left_out": w.left_out,
            "macs": w.macs,
            "macs_dense": whole.pop(w.of, 0),  # of a layer in two the first has it
        }
        section = sections.get(w.name)
        if section is not None:
            row |= {k: getattr(section, k) for k in ("layout", "codec", "nbytes", "bound_nbytes")}
        rows.append(row)
    return rows


def _acting(best: Candidate) -> dict[str, str]:
    """Parameter -> the constraints that were asked for on it."""
    names: dict[str, list[str]] = {}
    for t in () if best.net.asked is None else best.net.asked.terms:
        for param in dict.fromkeys(m.param for m in t.site.members):
            names.setdefault(param, []).append(t.constraint.name)
    return {param: ", ".join(dict.fromkeys(found)) for param, found in names.items()}


def _terms(job: Job, best: Candidate) -> list[dict[str, Any]]:
    """What was asked of the written weights and checked in them, as `verify` asks it again."""
    asked = best.net.asked or Asked((), {})
    found = [(t, asked.level(t)) for t in asked.terms]
    if job.chain is not None and best.points:
        tighter = [point.levels for point in best.points[1:]]
        found = [job.chain.whole(t, at, tighter) for t, at in found]
    return [membership.to_record(t, at, asked.n_cuts) for t, at in found]


def _history(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows, offset = [], 0
    for s in stages:
        for point in s.get("curve", []):
            rows.append({"stage": s["name"], **point, "step": offset + int(point["step"])})
        if s.get("curve"):
            offset += int(s["curve"][-1]["step"])
    stride = -(-len(rows) // _HISTORY) if rows else 1
    return rows[::stride]


def _verified(job: Job, best: Candidate, judge: Judge, inputs: Any) -> dict[str, Any]:
    """Engine, ONNX Runtime and torch on the same inputs, and the metric by each of them."""
    example, rows = job.example_inputs, _only_batch(job, best.files)
    with evaluating(best.files.module):
        like = call(best.files.module, example.few(inputs, 1))
    engine = Session(InferenceSession(best.files.sct), like, rows)
    module = Flat(best.files.module, inputs, engine.names)
    given = inputs if rows is None else example.few(inputs, rows)
    found = outputs_agree(best.files.sct, best.files.onnx, module, feeds(engine.names, given))
    found.pop("outputs")
    found["metric_torch"] = float(judge.evaluate(best.files.module))
    found["metric_engine"] = found["metric_onnxruntime"] = None
    try:
        found["metric_engine"] = float(judge.evaluate(engine))
    except Exception as e:  # the user's own function may want more of a model than calling it
        found["note"] = f"evaluate needs the module itself, so only torch is judged by it ({type(e).__name__}: {e})"
        return found
    try:
        ort = runtimes.onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(best.files.onnx, options, providers=["CPUExecutionProvider"])
        found["metric_onnxruntime"] = float(judge.evaluate(Session(session, like, rows)))
    except ImportError:
        pass
    except Exception as e:  # a peer's failure never loses a run
        found["note"] = f"ONNX Runtime could not be judged ({told(e)})"
    return found


def _only_batch(job: Job, files: Written) -> int | None:
    """The batch that a written network of single examples is fixed to; None where it takes any, or inputs whole."""
    return written.fixed_batch(files.onnx) if job.example_inputs.batched else None


def _latencies(job: Job, dense: Written, answer: Answer, inputs: Any) -> dict[str, Any]:
    """One interleaved timing of all columns, batch 1 (`engine.bench`): column -> runtime -> median, p10, p90 in ms."""
    from secateur.engine.bench import bench

    asked, best = job.recipe.bench, answer.best
    names = [i["name"] for i in _inputs(best.files.sct)]
    arrays = feeds(names, inputs)
    common: dict[str, Any] = {
        "threads": asked.threads,
        "inputs": arrays,
        "seconds": asked.seconds,
        "batch": _only_batch(job, best.files) or 1,
        "whole": not job.example_inputs.batched,
    }
    found = bench(
        best.files.sct,
        against=asked.against,
        dense=dense.onnx,
        module=Flat(best.files.module, inputs, names),
        dense_module=Flat(dense.module, inputs, names),
        **common,
    )
    times = {"compressed": found["latency_ms"]["model"], "dense": found["latency_ms"]["dense"]}
    if answer.one_shot is not None and answer.one_shot.files is not best.files:
        times["one_shot"] = bench(answer.one_shot.files.sct, against=(), **common)["latency_ms"]["model"]
    facts = {k: v for k, v in found.items() if k not in ("runs", "latency_ms")}
    by_level = levels.timed(best, lambda sct: bench(sct, against=(), **common)["latency_ms"]["model"])  # type: ignore[no-any-return]
    return {"latency_ms": times, "levels": by_level, "bench": facts | {"layers": _steps(best.files.sct)}}


def _steps(sct: bytes) -> list[dict[str, Any]]:
    """Kernel and time of every layer that the engine runs by itself."""
    kept = ("name", "op", "kernel", "why", "time_us")
    return [{k: row[k] for k in kept} for row in inspect(sct, time=True)["layers"] if row["time_us"]]


def _inputs(sct: bytes) -> list[dict[str, Any]]:
    return [{"name": i.name, "type": i.type, "shape": list(i.shape)} for i in InferenceSession(sct).get_inputs()]


def versions() -> dict[str, str]:
    """Of Secateur, Python and what a run depends on."""
    found = {"secateur": secateur.__version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
