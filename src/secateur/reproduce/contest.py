"""Many ways to one end beside each other: for each value of an axis, each part with the setting that validation chose.

What could not be made stands there too, with the reason: a method that refuses a set, a training that diverged, a
budget that was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean, stdev
from typing import Any

from secateur.reproduce.grid import Cell
from secateur.reproduce.plan import Study

Json = dict[str, Any]
Lines = Callable[[list[str], list[list[str]]], list[str]]
HEAD = ("way", "seeds", "nonzeros", "outcome", "step, x plain", "before, s", "memory, x plain", "engine, us")


def rows(study: Study, runs: Mapping[str, Mapping[int, Json]], failed: Json, latency: Mapping[str, Any]) -> list[Json]:
    """The best way first, per value of the axis.

    Args:
        runs: cell -> seed -> its facts. failed: cell -> why it was not made, with any seed.
        latency: of `engine.side_by_side`.
    Returns:
        at (the axis' value), part, cell (None: none was made), n_cells (of so many it was chosen), why (of what was not
        made); of the chosen one title, valid, test and its sd over the seeds, n_seeds, nnz, outcomes, step (times
        plain training), before_seconds, memory (times plain training), ms in the engine.
    """
    asked = study.plan.contest
    if asked is None:
        return []
    sign = 1 if study.plan.kind.higher_is_better else -1
    found = []
    for value in study.plan.grid[asked.over]:
        here = [c for c in study.cells.values() if f"{asked.over}={value}" in c.name.split(",")]
        of_parts = [[c for c in here if c.part == part] for part in dict.fromkeys(c.part for c in here)]
        per_part = [_row(study, cells, runs, failed, latency, sign) for cells in of_parts]
        ranked = sorted((r for r in per_part if r), key=lambda r: sign * r["valid"] if r["cell"] else float("-inf"))
        found += [{"at": str(value), **r} for r in reversed(ranked)]
    return found


def _row(
    study: Study, cells: list[Cell], runs: Mapping[str, Mapping[int, Json]], failed: Json, latency: Any, sign: int
) -> Json:
    """Of one part; empty where nothing of it was tried yet."""
    why = sorted({failed[c.name] for c in cells if c.name in failed})
    made = {c.name: runs[c.name] for c in cells if runs.get(c.name)}
    tried = {"part": cells[0].part, "n_cells": len(made), "why": why}
    if not made:
        return {**tried, "cell": None} if why else {}
    most = max(map(len, made.values()))
    valid = {n: fmean(f["valid"] for f in by_seed.values()) for n, by_seed in made.items() if len(by_seed) == most}
    name = max(valid, key=lambda n: sign * valid[n])
    facts = list(made[name].values())
    tests = [f["test"] for f in facts]
    costs = [f["cost"] for f in facts if "cost" in f]
    return {
        **{**tried, "cell": name, "title": study.cells[name].plan["title"], "valid": valid[name]},
        **{"test": fmean(tests), "sd": stdev(tests) if len(tests) > 1 else None, "n_seeds": len(facts)},
        **{"nnz": fmean(f["nnz"] for f in facts), "outcomes": sorted({f["outcome"] for f in facts})},
        **{"step": _ratio(costs, "step_ms"), "memory": _ratio(costs, "memory")},
        "before_seconds": _mean([c["before_seconds"] for c in costs]),
        "ms": latency.get("latency_ms", {}).get(name, {}).get("engine", {}).get("median"),
    }


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _ratio(costs: list[Json], field: str) -> float | None:
    """Of the means: with plain training's."""
    ours, plain = (_mean([c[key] for c in costs]) for key in (field, f"plain_{field}"))
    return ours / plain if ours is not None and plain else None


def tables(
    record: Json, shown: Callable[[float], str], lines: Callable[[list[str], list[list[str]]], list[str]]
) -> Any:
    """One table for each value of the axis, with what was refused or failed below it.

    Args:
        shown: writes a value of the measure. lines: writes a table.
    """
    out: list[str] = []
    found = record.get("contest", [])
    for value in dict.fromkeys(r["at"] for r in found):
        here = [r for r in found if r["at"] == value]
        name = record["measure"]["name"]
        head = [HEAD[0], name + " on test", "on validation", *HEAD[1:]]
        out += ["", f"{record['plan']['contest']['over']}: {value}", ""]
        out += lines(head, [_cells(r, shown) for r in here if r["cell"]])
        out += [f"- {r['part']} was not made: {why}" for r in here if not r["cell"] for why in r["why"]]
        out += [f"- {r['part']}, one of its settings: {why}" for r in here if r["cell"] for why in r["why"]]
    return out


def _cells(row: Json, shown: Callable[[float], str]) -> list[str]:
    def times(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    spread = "" if row["sd"] is None else f" +- {shown(row['sd'])}"
    return [
        f"{row['title']} (of {row['n_cells']})",
        f"{shown(row['test'])}{spread}",
        shown(row["valid"]),
        str(row["n_seeds"]),
        f"{row['nnz']:,.0f}",
        ", ".join(row["outcomes"]).replace("_", " "),
        times(row["step"]),
        "" if row["before_seconds"] is None else f"{row['before_seconds']:.1f}",
        times(row["memory"]),
        "" if row["ms"] is None else f"{1000 * row['ms']:.1f}",
    ]
