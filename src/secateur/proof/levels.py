"""The levels of a net that can be changed at run time, in the record of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from secateur.engine import InferenceSession
from secateur.proof.judge import Judge, Session
from secateur.training.batches import call
from secateur.training.metrics import evaluating

if TYPE_CHECKING:
    from secateur.run.job import Job
    from secateur.run.net import Candidate

Times = Mapping[str, Any]


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
        costs = point.costs(files)
        metric = judge.metric(files.module)
        row = {
            "level": point.at,
            **costs,
            "nbytes_onnx": len(files.onnx),
            "metric": metric,
            "metric_valid": point.metric,
            "metric_engine": _engine(judge, Session(InferenceSession(files.sct), like, rows)),
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
    return [bench(files.sct) for files in best.each_level] if best.points else []
