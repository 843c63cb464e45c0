"""The levels of a net that can be changed at run time: in the record of a run, and recomputed from its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur import formats
from secateur.engine import InferenceSession
from secateur.errors import SecateurError, UnsupportedError, UsageError
from secateur.export import membership
from secateur.export.rebuild import at_level
from secateur.export.stored import initializers
from secateur.export.written import LEVEL
from secateur.proof.agreement import outputs_agree
from secateur.proof.checks import Checks
from secateur.proof.judge import Judge, Session
from secateur.training.batches import call
from secateur.training.metrics import evaluating

if TYPE_CHECKING:
    from torch import nn

    from secateur.run.job import Job
    from secateur.run.net import Candidate

Times = Mapping[str, Any]
Report = Mapping[str, Any]


def record(job: Job, best: Candidate, judge: Judge, inputs: Any, rows: int | None) -> list[dict[str, Any]]:
    """A row for each level, from loose to tight: costs as a file of its own, limits, metric by torch and engine.

    Args:
        inputs: a batch, for the form of the outputs.
        rows: as `judge.Session` takes it.
    """
    found = []
    for point, files in zip(best.points, best.each_level if best.points else (), strict=True):
        with evaluating(files.module):
            like = call(files.module, job.example_inputs.few(inputs, 1))
        costs = {**point.costs(files), "nbytes": len(formats.pack(files.onnx))}  # alone, as the others are counted
        metric = judge.metric(files.module)
        row = {
            "level": point.at,
            **costs,
            "nbytes_onnx": len(files.onnx),
            "metric": metric,
            "metric_valid": point.metric,
            "metric_engine": _engine(judge, Session(InferenceSession(best.files.sct, level=point.at), like, rows)),
            "latency_ms": None,
            "budget": [
                {"name": x.kind, "asked": x.value, "reached": costs[x.kind], "met": bool(costs[x.kind] <= x.value)}
                for x in point.limits
            ],
        }
        if row["metric_engine"] is not None:
            metric["value"] = row["metric_engine"]
        found.append(row)
    return found


def _engine(judge: Judge, session: Session) -> float | None:
    """The metric by the engine; None where the user's own function needs the module itself."""
    try:
        return float(judge.evaluate(session))
    except Exception:  # said once, of the loosest level (`record._verified`)
        return None


def timed(best: Candidate, bench: Callable[[bytes], Times]) -> list[Times]:
    """Latencies of the levels, each by `bench` on its file."""
    return [bench(formats.pack(files.onnx)) for files in best.each_level] if best.points else []


# ---- verify --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class At:
    """What levels are run with: the rebuilt loosest net, the file of all, a module called by names, real inputs."""

    module: nn.Module
    sct: bytes
    flat: Callable[[nn.Module], nn.Module]
    fed: Mapping[str, Any]
    rows: int | None


def read(folder: Path, sct: bytes) -> tuple[bytes, ...]:
    """The ONNX files of the tighter levels of a run; none where its net has one level."""
    paths = [folder / LEVEL.format(k) for k in range(1, formats.levels(sct))]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UsageError(
            f"{folder}: {', '.join(missing)} missing; give the folder of a finished `secateur compress` run"
        )
    return tuple(path.read_bytes() for path in paths)


def check_files(report: Report, onnx: Sequence[bytes], sct: bytes, checks: Checks) -> None:
    """The packed file is that of all ONNX files; what the report says of each level's size is what it packs to."""
    unpacked = [formats.unpack(sct, level=k) for k in range(len(onnx))]
    checks.equal(
        "all levels of model.sct unpack and pack again to the same bytes", True, formats.pack_levels(unpacked) == sct
    )
    checks.equal("the ONNX files of all levels pack to model.sct", True, formats.pack_levels(onnx) == sct)
    alone = [len(formats.pack(model)) for model in unpacked]
    checks.equal("bytes of each level alone", [row["nbytes"] for row in report.get("levels") or ()], alone)


def check_sets(report: Report, onnx: Sequence[bytes], cuts: Sequence[Mapping[str, Any]], checks: Checks) -> None:
    """Every level is in its sets, has values of the one before and zeros, as many as are claimed, within its limits."""
    rows = report.get("levels") or []
    if len(onnx) < 2:
        if rows:
            checks.equal("levels of model.sct", len(rows), 1)
        return
    values, params = (
        [initializers(model) for model in onnx],
        {m["param"] for t in report["terms"] for m in t["place"]["members"]},
    )
    weights = [row["name"] for row in report["layers"] if row["op"] not in ("bias", "norm", "vector")]
    checks.equal("levels of model.sct", len(rows), len(onnx))
    for k, row in enumerate(rows[: len(onnx)]):
        now, looser = values[k], values[max(k - 1, 0)]
        wrong = [
            n for n in sorted(params & now.keys()) if not np.array_equal(now[n], np.where(now[n] != 0, looser[n], 0))
        ]
        wrong += _outside(report, k, onnx[k], cuts)
        checks.nothing_wrong(f"level {k}: in its sets and inside the one before", len(report["terms"]), wrong)
        found = sum(int(np.count_nonzero(now[n])) for n in weights if n in now)
        if all(n in now for n in weights):
            checks.equal(f"level {k}: nonzeros", row["nnz"], found)
        for limit in row["budget"]:
            reached = row[limit["name"]]
            met = reached <= limit["asked"] and limit["met"] and limit["reached"] == reached
            checks.add(f"level {k}: budget {limit['name']}", f"<= {limit['asked']:g}", reached, met)


def _outside(report: Report, k: int, onnx: bytes, cuts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sites whose weights are not in the set of level `k`."""
    wrong: list[str] = []
    for row in report["terms"]:
        try:
            asked = membership.from_record(row)
            (term,) = asked.terms
            if term.constraint.chain is not None:
                level = term.level[k] if isinstance(term.level, tuple) else None
                term = replace(term, constraint=term.constraint.chain[0], level=level)
                asked = membership.Asked((term,), {term.site.name: level}, asked.n_cuts)
            wrong += membership.outside(asked, onnx, cuts)
        except (TypeError, ValueError, IndexError, KeyError, SecateurError) as e:
            wrong.append(f"{row['site']}: {e}")
    return wrong


def check_outputs(report: Report, tighter: Sequence[bytes], at: At, checks: Checks) -> None:
    """Engine at a level = engine on that level alone, to the bit; = ONNX Runtime = PyTorch within the tolerance."""
    for k, onnx in enumerate(tighter, 1):
        alone = formats.pack(onnx)
        fed = dict(at.fed)
        ours, other = InferenceSession(at.sct, level=k).run(None, fed), InferenceSession(alone).run(None, fed)
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, other, strict=True))
        checks.equal(f"level {k}: the engine answers as on a file of this level alone, to the bit", True, same)
        module = _module(at, onnx)
        result = outputs_agree(alone, onnx, None if module is None else at.flat(module), at.fed)
        passed = result["agree"] and not result["failed"]
        checks.add(
            f"level {k}: engine = ONNX Runtime = PyTorch",
            f"<= {result['tolerance']:.3g}",
            result["max_abs_error"],
            passed,
        )


def check_metrics(report: Report, tighter: Sequence[bytes], at: At, judges: Sequence[Any], checks: Checks) -> None:
    """The metric of each level: by the engine with the first judge (test), by PyTorch with the second (validation)."""
    rows = (report.get("levels") or [])[1:]  # of another number than there are levels: `check_sets` says so
    for k, (row, onnx) in enumerate(zip(rows, tighter, strict=False), 1):
        (test, valid), module = judges, _module(at, onnx)
        name = row["metric"]["name"]
        within = 1e-9 if name == "accuracy" else 1e-5 * abs(row["metric"]["value"])
        if test is not None:
            engine = Session(InferenceSession(at.sct, level=k), rows=at.rows)
            checks.equal(f"level {k}: {name}, engine", row["metric"]["value"], float(test(engine)), within)
        if module is None:
            checks.skip(f"level {k}: {name} on validation, PyTorch", "its weights are in the file in another form")
            continue
        with evaluating(module):
            checks.equal(f"level {k}: {name} on validation, PyTorch", row["metric_valid"], float(valid(module)), within)


def _module(at: At, onnx: bytes) -> nn.Module | None:
    try:
        return at_level(at.module, onnx)
    except UnsupportedError:
        return None
