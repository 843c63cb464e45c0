"""Accuracy against latency: for each dense control the fastest of our nets that is not worse; and a page that shows it.

Validation chooses: of our nets that are not worse than the control by `margin` there, the fastest. The test part then
says whether it holds: the interval of the difference over the seeds is above -`margin`. Every net counts in the runtime
in which it is fastest, ours too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from secateur.report import document, words
from secateur.report.figure import Figure
from secateur.reproduce.plan import Study
from secateur.reproduce.verdict import LEAST_SEEDS, gain
from secateur.version import __version__

Json = dict[str, Any]


def rows(study: Study, runs: Mapping[str, Mapping[int, Json]], latency: Mapping[str, Any]) -> list[Json]:
    """One row for each control that is made and timed.

    Args:
        runs: cell -> seed -> its facts.
        latency: of `engine.side_by_side`.
    Returns:
        control, test, runtime, ms; ours (a cell, None: none is as good on validation), its test, runtime and ms; times
        (how many times faster), gain {mean, low, high} on test, holds (None: too few seeds for an interval).
    """
    asked = study.plan.frontier
    if asked is None or not latency:
        return []
    sign = 1 if study.plan.kind.higher_is_better else -1
    ours, control = (_timed(study, patterns, runs, latency) for patterns in (asked.ours, asked.control))
    found = []
    for name, best in control.items():
        bar = sign * _mean(runs[name], "valid") - asked.margin
        good = [n for n in ours if sign * _mean(runs[n], "valid") >= bar]
        row: Json = {"control": name, "test": _mean(runs[name], "test"), **best, "ours": None}
        if good:
            chosen = min(good, key=lambda n: float(ours[n]["ms"]))
            apart = gain("measure", runs[chosen], runs[name], True, sign)
            enough = min(len(runs[chosen]), len(runs[name])) >= LEAST_SEEDS and apart["low"] is not None
            row |= {
                **{"ours": chosen, "ours_test": _mean(runs[chosen], "test")},
                **{f"ours_{k}": v for k, v in ours[chosen].items()},
                **{"times": best["ms"] / ours[chosen]["ms"], "gain": apart},
                "holds": bool(apart["low"] >= -asked.margin) if enough else None,
            }
        found.append(row)
    return sorted(found, key=lambda r: -float(r["ms"]))


def lines(record: Json, shown: Any) -> list[str]:
    """Sentences for the table's notes; `shown(value)` writes a value of the measure."""
    out = []
    for r in record.get("frontier", []):
        text = f"{r['control']}: {shown(r['test'])}, {words.milliseconds(r['ms'])} in {r['runtime']}"
        if r["ours"] is None:
            out.append(f"{text}; none of ours is as good on validation.")
            continue
        holds = {True: "not worse on test", False: "WORSE or not shown on test", None: "too few seeds for an interval"}
        out.append(
            f"{text}; ours {r['times']:.2f}x as fast: {r['ours']}, {shown(r['ours_test'])}, "
            f"{words.milliseconds(r['ours_ms'])} in {r['ours_runtime']}, {holds[r['holds']]}."
        )
    return out


def page(record: Json) -> str:
    """The plot of all timed nets, each in its fastest runtime, as a page.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    plot = _figure(record)
    timed = record["latency"]
    hint = (
        f"{timed['cpu']}, {timed['isa']}, one thread, batch 1, {timed['n_inputs']} real inputs in rotation, all nets "
        "and runtimes interleaved; each net in the runtime in which it is fastest."
    )
    body = [
        f'<header class="top"><h1>{record["name"]}: {record["task"]["name"] or ""}</h1></header>',
        document.section("frontier", "Accuracy against latency", document.figure(plot, wide=True), hint),
    ]
    return document.page(record["name"], "\n".join(body), {plot.name: plot}, __version__, f"{record['name']}.json")


def fastest(times: Mapping[str, Mapping[str, float]]) -> Json:
    """The runtime with the smallest median, and that in ms."""
    runtime = min(times, key=lambda r: times[r]["median"])
    return {"runtime": runtime, "ms": times[runtime]["median"]}


def _timed(
    study: Study, patterns: Sequence[str], runs: Mapping[str, Mapping[int, Json]], latency: Mapping[str, Any]
) -> dict[str, Json]:
    names = dict.fromkeys(c.name for p in patterns for c in study.matching(p))
    return {n: fastest(latency["latency_ms"][n]) for n in names if n in latency["latency_ms"] and runs.get(n)}


def _mean(found: Mapping[int, Json], key: str) -> float:
    return fmean(float(f[key]) for f in found.values())


def _figure(record: Json) -> Figure:
    scale, unit = record["measure"]["scale"], record["measure"]["unit"]
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for name, times in record["latency"]["latency_ms"].items():
        best, cell = fastest(times), record["cells"][name]
        value = scale * cell["test"]["mean"]
        text = f"{cell['title']}: {value:.2f} {unit}, {words.milliseconds(best['ms'])} in {best['runtime']}"
        groups.setdefault(name.split(",")[0], []).append((best["ms"], value, text))
    data = [
        {
            **{"type": "scatter", "mode": "lines+markers", "name": part},
            **dict(zip(("x", "y", "customdata"), map(list, zip(*sorted(points), strict=True)), strict=True)),
            "marker": {"size": 9, "symbol": i},
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        for i, (part, points) in enumerate(groups.items())
    ]
    return Figure(
        name="accuracy-latency",
        title="Test measure against latency",
        text="; ".join(text for points in groups.values() for _, _, text in points),
        data=data,
        layout={
            "xaxis": {"title": {"text": "ms a call"}, "type": "log"},
            "yaxis": {"title": {"text": f"{record['measure']['name']}, {unit}"}},
            "margin": {"l": 64, "r": 24, "t": 18, "b": 48},
        },
        height=480,
    )
