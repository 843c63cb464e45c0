"""`sweep.html`: the points of a sweep, as a plot of what each costs against its metric, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from secateur.report import document, words
from secateur.report.figure import Figure
from secateur.version import __version__

HEADS = ("metric", "dense", "file", "nonzeros", "MACs", "engine", "budget")  # of `lines`, behind the key
_AXES = (("nbytes", "File size", "bytes", words.nbytes), ("engine_ms", "Latency", "ms a call", words.milliseconds))


def page(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole page as text.

    Args:
        key: the recipe key that was varied.
        rows: as `Sweep.rows`.
    Raises:
        MissingExtraError: plotly is not installed.
    """
    figures = [f for axis in _AXES if (f := _figure(rows, *axis)) is not None]
    plots = "".join(document.figure(f, wide=True) for f in figures)
    parts = [
        f'<header class="top"><h1>{len(rows)} points over {escape(key)}</h1></header>',
        document.section("frontier", "Frontier", plots) if plots else "",
        document.section(
            "points", "Points", _table(key, rows), "Each point is a run of its own: open its report.html."
        ),
    ]
    return document.page(f"Sweep over {key}", "\n".join(parts), {f.name: f for f in figures}, __version__, "sweep.json")


def lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table as text: value, metric, dense metric, file, nonzeros, MACs, latency, what came of it."""
    return [
        [
            str(row["value"]),
            _metric(row, "metric"),
            _metric(row, "dense_metric"),
            words.nbytes(row["nbytes"]),
            words.count(row["nnz"]),
            words.big(row["macs"]),
            words.milliseconds(row["engine_ms"]),
            "met" if row["met"] else str(row["error"] or "NOT MET"),
        ]
        for row in rows
    ]


def _metric(row: Mapping[str, Any], column: str) -> str:
    return words.metric({"name": row["metric_name"], "value": row[column]}, with_error=False)


def _figure(rows: Sequence[Mapping[str, Any]], cost: str, title: str, unit: str, show: Any) -> Figure | None:
    seen = sorted((r for r in rows if r["metric"] is not None and r[cost] is not None), key=lambda r: float(r[cost]))
    if len(seen) < 2:
        return None
    names = [f"{r['value']}: {_metric(r, 'metric')} at {show(r[cost])}" for r in seen]
    dense = seen[0]["dense_metric"]
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": dense, "y1": dense}
    return Figure(
        name=f"sweep-{cost.replace('_', '-')}",
        title=f"{title} against the metric; dashed: the dense net",
        text="; ".join(names),
        data=[
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [r[cost] for r in seen],
                "y": [r["metric"] for r in seen],
                "customdata": names,
                "line": {"color": "@accent", "width": 1.5},
                "marker": {"size": 9, "color": "@accent"},
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        ],
        layout={
            "xaxis": {"title": {"text": unit}, "type": "log"},
            "yaxis": {"title": {"text": "metric"}},
            "shapes": [line | {"line": {"color": "@muted", "width": 1, "dash": "dash"}}] if dense is not None else [],
            "showlegend": False,
            "margin": {"l": 64, "r": 24, "t": 18, "b": 48},
        },
        height=320,
    )


def _table(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in (key, *HEADS))
    body = []
    for row, cells in zip(rows, lines(rows), strict=True):
        name = escape(cells[0])
        first = name if row["error"] else f'<a href="{escape(str(row["folder"]))}/report.html">{name}</a>'
        body.append(f"<tr><td>{first}</td>{''.join(f'<td>{escape(c)}</td>' for c in cells[1:])}</tr>")
    return f'<div class="panel"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
