"""`sweep`: runs along a frontier, each from the answer before it; one table, one page, each point a complete run."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.api.compression import run
from secateur.budget import kinds
from secateur.errors import BudgetError, FormatError, MissingExtraError, UsageError
from secateur.recipe import Recipe
from secateur.report import frontier
from secateur.shell import saving
from secateur.training.loop import Report

COLUMNS = (
    *(
        "value",
        "folder",
        "met",
        "metric_name",
        "dense_metric",
        "metric",
        "nbytes",
        "nnz",
        "macs",
        "engine_ms",
        "dense_engine_ms",
    ),
    "error",
)


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        key: the recipe key that was varied.
        rows: one a value, in the order of the runs; the keys are `COLUMNS` and `recipe`. `metric`, `dense_metric`:
            fractions or losses; `*_ms` medians of one call; None where the point failed, and `error` says why.
        folder: holds `sweep.csv`, `sweep.json`, `sweep.html` and a run's folder for each point.
    """

    key: str
    rows: tuple[dict[str, Any], ...]
    folder: Path

    @property
    def met(self) -> bool:
        """Did every point meet its limits?"""
        return all(row["met"] for row in self.rows)


def sweep(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    over: str,
    values: Sequence[Any],
    out: str | Path,
    *,
    resume: bool = False,
    cold: bool = False,
    data_dir: str | Path | None = None,
    on_progress: Callable[[str], Report | None] = lambda point: None,
) -> Sweep:
    """Run `recipe` once for each value of one of its keys.

    Limits are taken from the loosest to the tightest, so that every run can start from the answer of the one before and
    the dense net is trained once. A point whose limits cannot be met is a row that says so, and the next starts where
    this one did.

    Args:
        recipe: with `model` and `data` by name; a Recipe, a mapping or the path of a YAML file.
        over: a key as in `--set`: `budget.nbytes`, `solver.epochs`, `constrain.0.level.sparsity`.
        values: at least one, as a recipe would write them.
        out: folder of the sweep.
        resume: keep the finished points of that folder and go on with the others.
        cold: start every point from the dense net; it is trained once all the same.
        on_progress: called with each point's name before it runs; what it answers hears of its progress.
    Raises:
        UsageError: before anything is trained: a value is refused by the recipe, two are the same.
    """
    out, base = Path(out), Recipe.of(recipe, None)
    points = _ordered(base, over, values)
    saving.make_folder(out)
    known, rows = _finished(out) if resume else {}, list[dict[str, Any]]()
    last: Path | None = None
    first: Path | None = None
    for value, point in points:
        folder = out / _folder(over, value)
        row = known.get((folder.name, point.to_yaml()))
        if row is None:
            row = _row(value, folder, point)
            try:
                heard, after = on_progress(folder.name), first if cold else last
                report = run(
                    point, folder, resume=resume, on_progress=heard, data_dir=data_dir, after=after, warm=not cold
                ).report
                row |= _numbers(report)
            except BudgetError as e:
                row["error"] = str(e)
        if row["error"] is None:
            last, first = folder, first or folder
        rows.append(row)
        _write(out, over, rows)
    return Sweep(over, tuple(rows), out)


def _ordered(base: Recipe, over: str, values: Sequence[Any]) -> list[tuple[str, Recipe]]:
    """The recipes, limits from the loosest to the tightest; all are read before the first one runs."""
    written = [v if isinstance(v, str) else json.dumps(v) for v in values]
    if not written:
        raise UsageError(f"sweep: no value for {over}; give one or more, as {over}=20KB,10KB")
    if len({_folder(over, v) for v in written}) < len(written):
        raise UsageError(f"sweep: {over} has the same value twice in {', '.join(written)}; give each once")
    points = [(v, Recipe.from_text(base.to_yaml(), [f"{over}={v}"], f"sweep {over}={v}")) for v in written]
    kind = over.removeprefix("budget.")
    if kind == over or kind not in kinds.known():
        return points
    # A drop is loose where it is large, but its net is small then: the way goes from large nets to small ones.
    sign = 1 if kind == kinds.DROP else -1
    return sorted(points, key=lambda p: sign * next(x.value for x in p[1].limits() if x.kind == kind))


def _folder(over: str, value: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", f"{over.rpartition('.')[2]}={value.strip()}")


def _finished(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Folder and recipe -> row, of the points that an earlier call has run to their ends."""
    path = out / "sweep.json"
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["points"]
        known = {(str(r["folder"]), str(r["recipe"])): dict(r) for r in rows if r["error"] is None}
        complete = all(r.keys() >= {*COLUMNS} for r in known.values())
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise FormatError(f"{path}: damaged ({type(e).__name__}: {e}); remove it and start again") from None
    if not complete:
        raise FormatError(f"{path}: damaged (a row lacks columns); remove it and start again")
    return {k: r for k, r in known.items() if (out / k[0] / "report.json").is_file()}


def _row(value: str, folder: Path, recipe: Recipe) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"value": value, "folder": folder.name, "met": False, "recipe": recipe.to_yaml()}


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    dense, small = report["dense"], report["compressed"]
    return {
        "met": all(b["met"] is not False for b in report["budget"]),
        "metric_name": small["metric"]["name"],
        "dense_metric": dense["metric"]["value"],
        "metric": small["metric"]["value"],
        **{k: small[k] for k in ("nbytes", "nnz", "macs")},
        "engine_ms": _median(small),
        "dense_engine_ms": _median(dense),
    }


def _median(column: Mapping[str, Any]) -> float | None:
    times = (column.get("latency_ms") or {}).get("engine") or {}
    median = times.get("median")
    return None if median is None else float(median)


def _write(out: Path, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    saving.write_bytes(out / "sweep.csv", text.getvalue().encode("utf-8"))
    saving.write_bytes(out / "sweep.json", saving.to_json({"schema": 1, "key": key, "points": list(rows)}))
    try:
        saving.write_bytes(out / "sweep.html", frontier.page(key, rows).encode("utf-8"))
    except MissingExtraError as e:
        logging.getLogger("secateur").warning("%s: sweep.html was not written: %s", out, e)
