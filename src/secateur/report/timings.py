"""The page of a `secateur bench` record: latencies with their spread, ratios, every round, what was compared."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from secateur.report import document, words
from secateur.report.figure import Figure
from secateur.report.verdict import runtime_name
from secateur.shell import saving

TITLES = {
    "model": "this file",
    "dense": "dense",
    "dense_int8": "dense int8",
    "model_int8": "this file in int8",
}
_COLOURS = {"model": "@accent", "dense": "@dense", "dense_int8": "@control", "model_int8": "@one-shot"}
_DASHES = {"engine": "solid", "onnxruntime": "dot", "openvino": "dash", "torch": "longdash"}


def write(path: str | Path, record: Mapping[str, Any], version: str) -> Path:
    """Write the page of a `bench` record, atomically; its path. MissingExtraError without plotly."""
    path = Path(path)
    saving.write_bytes(path, render(record, version).encode("utf-8"))
    return path


def render(record: Mapping[str, Any], version: str) -> str:
    """The page as text; `version` is the package's."""
    figures = {f.name: f for f in (latency(record), ratios(record), rounds(record))}
    wide = "".join(document.figure(figures[name], wide=True) for name in ("latency", "ratios", "rounds"))
    body = "\n".join(
        (
            _top(record),
            document.section("timings", "Timings", f'<div class="grid">{wide}</div>'),
            document.section("agreement", "Agreement", _checks(record), _AGREEMENT),
            document.section("conditions", "Conditions", _conditions(record)),
        )
    )
    return document.page(f"{record['title']} · Secateur bench", body, figures, version, "the JSON record")


_AGREEMENT = (
    "Every runtime against the engine on the same file and the same inputs. float32: largest difference within what "
    "rounding may do. Int8: the engine is as near to the float32 result as the other runtime is."
)


def _name(runtime: str, model: str) -> str:
    return f"{runtime_name(runtime)}, {TITLES[model]}"


def latency(record: Mapping[str, Any]) -> Figure:
    """Time of one call per runtime and model, bars with the 10th to 90th percentile."""
    runs = record["runs"]
    names = [[TITLES[r["model"]] for r in runs], [runtime_name(r["runtime"]) for r in runs]]
    times = [r["latency_ms"] for r in runs]
    high = [t["p90"] for t in times]
    bars = {
        "type": "bar", "orientation": "h", "x": [t["median"] for t in times], "y": names,
        "marker": {"color": [_COLOURS[r["model"]] for r in runs]},
        "error_x": _whiskers(times), "hoverinfo": "skip",
    }  # fmt: skip
    labels = {
        "type": "scatter", "mode": "text", "x": high, "y": names, "cliponaxis": False, "textposition": "middle right",
        "text": ["  " + words.milliseconds(t["median"]) for t in times],
        "customdata": [
            f"{words.milliseconds(t['p10'])} to {words.milliseconds(t['p90'])}, {r['n_calls']} calls, {r['version']}"
            for t, r in zip(times, runs, strict=True)
        ],
        "hovertemplate": "%{text}, 10th to 90th percentile %{customdata}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {
            "range": [0, 1.15 * max(high)],
            "title": {"text": "milliseconds a call; whiskers: 10th to 90th percentile"},
        },
        "yaxis": {"type": "multicategory", "autorange": "reversed", "dividercolor": "@line"},
        "showlegend": False, "bargap": 0.3, "margin": {"l": 190, "r": 16, "t": 8, "b": 48},
    }  # fmt: skip
    said = "; ".join(
        f"{_name(r['runtime'], r['model'])}: {words.milliseconds(r['latency_ms']['median'])}" for r in runs
    )
    return Figure("latency", "Latency of one call", said, [bars, labels], layout, 90 + 30 * len(runs))


def _whiskers(times: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": "@muted",
        "array": [max(0.0, t["p90"] - t["median"]) for t in times],
        "arrayminus": [max(0.0, t["median"] - t["p10"]) for t in times],
    }  # fmt: skip


def ratios(record: Mapping[str, Any]) -> Figure:
    """How many times faster the engine runs the file than each of the others, with the spread over rounds."""
    found = record["ratios"]
    names = [_name(*r["of"]) for r in found]
    points = {
        "type": "scatter", "mode": "markers+text", "x": [r["median"] for r in found], "y": names,
        "text": [f"{r['median']:.2f}×" for r in found], "textposition": "top center", "cliponaxis": False,
        "error_x": _whiskers(found), "marker": {"size": 11, "color": [_COLOURS[r["of"][1]] for r in found]},
        "customdata": [f"{r['p10']:.2f} to {r['p90']:.2f}" for r in found],
        "hovertemplate": "%{y}: %{text}, 10th to 90th percentile %{customdata}<extra></extra>",
    }  # fmt: skip
    most = max((r["p90"] for r in found), default=1.0)
    layout = {
        "xaxis": {"range": [0, 1.1 * max(most, 1.0)], "title": {"text": "time of the other / time of the engine"}},
        "yaxis": {"type": "category", "autorange": "reversed", "range": [len(found) - 0.4, -0.8]},
        "shapes": [
            {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1,
             "line": {"color": "@muted", "width": 1, "dash": "dash"}}
        ],
        "showlegend": False, "margin": {"l": 190, "r": 16, "t": 18, "b": 48},
    }  # fmt: skip
    said = "; ".join(f"{n}: {r['median']:.2f} times" for n, r in zip(names, found, strict=True))
    title = "How many times faster the engine runs this file; the line is 1"
    return Figure("ratios", title, said or "nothing to compare with", [points], layout, 90 + 40 * len(found))


def rounds(record: Mapping[str, Any]) -> Figure:
    """The median of every turn, round by round: drift and disturbance are seen here."""
    lines = [
        {
            "type": "scatter", "mode": "lines+markers", "name": _name(r["runtime"], r["model"]),
            "x": list(range(1, 1 + len(r["rounds_ms"]))), "y": r["rounds_ms"],
            "line": {"color": _COLOURS[r["model"]], "width": 1.5, "dash": _DASHES[r["runtime"]]},
            "marker": {"size": 5, "color": _COLOURS[r["model"]]},
            "hovertemplate": "%{fullData.name}, round %{x}: %{y:.4g} ms<extra></extra>",
        }
        for r in record["runs"]
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "round (turns are interleaved, in an order drawn anew each round)"}},
        "yaxis": {"type": "log", "title": {"text": "milliseconds a call, median of the turn"}},
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"l": 70, "r": 16, "t": 8, "b": 48},
    }
    said = f"{len(record['runs'])} lines; select a name to hide its line"
    return Figure("rounds", "Every round (select a name to hide its line)", said, lines, layout, 520)


def _top(record: Mapping[str, Any]) -> str:
    threads = record["threads"]
    facts = (
        f"batch {record['batch']}",
        f"{threads} thread{'s' if threads != 1 else ''}",
        escape(record["cpu"]),
        f"ISA {escape(record['isa'])}",
    )
    subject = record["title"].split(": batch")[0]
    return f'<header class="top"><h1>{escape(subject)}</h1><p class="facts">{" · ".join(facts)}</p></header>'


def _checks(record: Mapping[str, Any]) -> str:
    heads = (
        "Runtime",
        "Model",
        "Largest difference",
        "Tolerance",
        "Engine / other from float32",
        "Same class",
        "State",
    )
    states = {
        True: '<span class="met">agrees</span>',
        False: '<span class="missed">differs</span>',
        None: "not judged",
    }
    lines = []
    for c in record["checks"]:
        tolerance = words.NONE if c["tolerance"] is None else f"{c['tolerance']:.2g}"
        apart = f"{c['engine_error']:.4f} / {c['peer_error']:.4f}" if "engine_error" in c else words.NONE
        same = words.NONE if c["same_argmax"] is None else words.percent(c["same_argmax"])
        cells = (TITLES[c["model"]], f"{c['max_abs_error']:.2g}", tolerance, apart, same)
        cells_html = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        name = escape(runtime_name(c["runtime"]))
        lines.append(f'<tr><th scope="row">{name}</th>{cells_html}<td>{states[c["agree"]]}</td></tr>')
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="panel scroll">{table}</div>'


def _conditions(record: Mapping[str, Any]) -> str:
    notes = [*record["compared"], *record.get("notes", ())]
    skipped = [f"{name}: {why}" for name, why in record["skipped"].items()]
    items = [
        ("Inputs", f"{record['n_inputs']} {record['inputs']} in rotation, turns interleaved, warm"),
        ("Compared", "<br>".join(escape(n) for n in notes)),
        ("Left out", "<br>".join(escape(s) for s in skipped)),
        ("Files", ", ".join(f"{TITLES[k]} {words.nbytes(v)}" for k, v in record["nbytes"].items())),
        (
            "Versions",
            escape(", ".join(sorted({f"{runtime_name(r['runtime'])} {r['version']}" for r in record["runs"]}))),
        ),
        ("Clock", escape(record["clock"])),
        ("Machine", escape(record["machine"])),
        ("Kernels", escape(", ".join(dict.fromkeys(record["kernels"])))),
    ]
    return document.facts((k, v) for k, v in items if v)
