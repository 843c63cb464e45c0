"""The record of a study: mean and spread of every cell, goals, claims with their verdicts, the machines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from secateur.reproduce import bar, contest, frontier
from secateur.reproduce.grid import Cell
from secateur.reproduce.plan import Claim, Goal, Study
from secateur.reproduce.verdict import LEAST_SEEDS, gain, verdict
from secateur.version import __version__

Json = dict[str, Any]
_FIGURES = ("test", "valid", "nnz", "n_biases", "nbytes", "seconds", "epochs")


def build(study: Study, seeds: Mapping[int, Json], latency: Mapping[str, Any] | None = None) -> Json:
    """Everything that is known of a study.

    Args:
        seeds: seed -> {cells: name -> facts, speed}.
        latency: of `engine.side_by_side`, where the study times its nets beside each other.
    """
    plan, kind = study.plan, study.plan.kind
    runs = {
        c.name: {s: f["cells"][c.name] for s, f in seeds.items() if c.name in f["cells"]} for c in study.cells.values()
    }
    failed = {name: why for f in seeds.values() for name, why in f.get("failed", {}).items()}
    cells = {n: {"title": study.cells[n].plan["title"], **_summary(found)} for n, found in runs.items() if found}
    task = f" --task {study.task}" if study.task else ""
    return {
        "schema": 2,
        "name": study.name,
        "about": plan.about,
        "task": {"name": study.task, "kind": plan.task, "data": plan.data},
        "measure": {
            **{"name": kind.measure, "unit": kind.unit, "scale": kind.scale},
            "higher_is_better": kind.higher_is_better,
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "secateur": __version__,
        "machines": _machines(runs),
        "command": f"secateur reproduce {study.name}{task}",
        "n_weights": plan.n_weights,
        "n_cells": {
            **{"finished": sum(map(len, runs.values())), "all": _asked(study)},
            "failed": sum(len(f.get("failed", {})) for f in seeds.values()),
        },
        "goals": [
            _goal(g, c.name, cells[c.name], study)
            for g in plan.goals
            for c in study.matching(g.part)
            if c.name in cells
        ],
        "claims": [claim(c, study, runs) for c in plan.claims],
        "cells": cells,
        "latency": latency or {},
        "bar": bar.row(study, runs, latency or {}),
        "frontier": frontier.rows(study, runs, latency or {}),
        "contest": contest.rows(study, runs, failed, latency or {}),
        "seeds": {str(s): found for s, found in seeds.items()},
        "plan": plan.model_dump(by_alias=True, exclude_none=True, exclude={"define"}),
    }


def claim(asked: Claim, study: Study, runs: Mapping[str, Mapping[int, Json]]) -> Json:
    """A claim with what was found: the gain, the verdict, and whether it is what had been expected."""
    said = asked.model_dump(exclude_none=True)
    ours, theirs = (_chosen(study, study.matching(p), runs) for p in (asked.part, asked.against))
    found: Json = {**said, "verdict": "open", "cells": [x["cell"] for x in (ours, theirs)], "gain": None}
    missing = [x["missing"] for x in (ours, theirs) if x["missing"]]
    if ours["cell"] is None or theirs["cell"] is None:
        return {**found, "why": "; ".join(missing)}
    a, b = runs[ours["cell"]], runs[theirs["cell"]]
    recorded = any("recorded" in study.cells[x["cell"]].plan for x in (ours, theirs))
    sign = 1 if study.plan.kind.higher_is_better else -1
    found["gain"] = gain(asked.figure, a, b, not recorded, sign)
    found["n_seeds"] = [len(a), len(b)]
    low, high = found["gain"]["low"], found["gain"]["high"]
    if min(len(a), len(b)) < LEAST_SEEDS:
        missing.append(f"{min(len(a), len(b))} of at least {LEAST_SEEDS} seeds")
    if missing or low is None or high is None:
        return {**found, "why": "; ".join(missing)}
    nothing = 0.0 if asked.figure == "measure" else 1.0
    found["verdict"] = verdict(low, high, asked.claimed, asked.margin, nothing)
    found["why"] = "the interval holds the bar" if found["verdict"] == "open" else ""
    expect = asked.expect
    mean = found["gain"]["mean"]
    found["expected"] = "above" if mean > expect.high else "below" if mean < expect.low else "as expected"
    return found


def _chosen(study: Study, among: Sequence[Cell], runs: Mapping[str, Mapping[int, Json]]) -> Json:
    """The cell that is best on validation, of those with the most seeds, and what is not finished among them."""
    finished = {c.name: runs[c.name] for c in among if runs.get(c.name)}
    seeds = set(study.plan.seeds)
    whole = [c for c in among if "recorded" in c.plan or seeds <= set(finished.get(c.name, {}))]
    missing = "" if len(whole) == len(among) else f"{len(whole)} of {len(among)} cells have all seeds"
    if not finished:
        return {"cell": None, "missing": missing}
    most = max(map(len, finished.values()))
    sign = 1 if study.plan.kind.higher_is_better else -1
    scores = {n: sign * statistics.fmean(f["valid"] for f in r.values()) for n, r in finished.items() if len(r) == most}
    return {"cell": max(scores, key=lambda n: scores[n]), "missing": missing}


def _goal(goal: Goal, name: str, cell: Json, study: Study) -> Json:
    """Met when the mean reaches the measure and no seed is larger than allowed."""
    asked = {"nnz": goal.nnz, "nbytes": goal.nbytes}
    sizes = {k: {"asked": v, "worst": cell[k]["max"]} for k, v in asked.items() if v is not None}
    mean = cell["test"]["mean"]
    reached = mean >= goal.measure if study.plan.kind.higher_is_better else mean <= goal.measure
    met = reached and all(s["worst"] <= s["asked"] for s in sizes.values())
    return {"cell": name, "measure": goal.measure, "test": cell["test"], "sizes": sizes, "met": met}


def _summary(runs: Mapping[int, Json]) -> Json:
    """Per figure: mean, standard deviation over the seeds (0 for one), smallest, largest."""
    found = list(runs.values())
    out: Json = {"n_seeds": len(found)}
    for key in _FIGURES:
        values = [float(r[key]) for r in found if key in r]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            out[key] = {"mean": statistics.fmean(values), "sd": spread, "min": min(values), "max": max(values)}
    same = [int(r["same_as_onnxruntime"]) for r in found if r.get("same_as_onnxruntime") is not None]
    out["same_as_onnxruntime"] = min(same) if len(same) == len(found) else None
    out["n_test"] = found[0].get("n_test")
    return out


def _machines(runs: Mapping[str, Mapping[int, Json]]) -> list[Json]:
    """The different machines, kernels and codes that the cells were made by, with how many of each."""
    counted: dict[tuple[Any, ...], int] = {}
    for found in runs.values():
        for made in (facts["made"] for facts in found.values() if "made" in facts):
            key = (made["cpu"], made["isa"], made["commit"], tuple(sorted(made["versions"].items())))
            counted[key] = counted.get(key, 0) + 1
    return [
        {"cpu": cpu, "isa": isa, "commit": commit, "versions": dict(versions), "cells": n}
        for (cpu, isa, commit, versions), n in counted.items()
    ]


def _asked(study: Study) -> int:
    """How many trainings the whole study is, and how many recorded seeds it has."""
    recorded = [c for c in study.cells.values() if "recorded" in c.plan]
    given = sum(len(c.plan["recorded"]["seeds"]) for c in recorded)
    return given + (len(study.cells) - len(recorded)) * len(study.plan.seeds)
