"""The training curves of a report: one panel per kind of number over the steps of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.report.figure import Figure
from secateur.report.records import is_number

_MAX_POINTS = 2000  # per curve; more than a screen has columns
# Panels of the training curves: title, keys that belong there, logarithmic?
_PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("loss", ("loss", "task", "distillation", "penalty"), True),
    ("validation metric", ("metric", "accuracy", "valid"), False),
    ("density (1 - sparsity)", ("sparsity",), True),
    ("residuals", ("primal_residual", "dual_residual", "residual"), True),
    ("bytes", ("nbytes",), True),
    ("learning rate", ("lr", "learning_rate"), False),
)
_LINES = ("@accent", "@one-shot", "@control", "@raw")
_Panel = tuple[str, list[tuple[str, str, list[tuple[float, float]]]], bool]  # title, (key, run, points), logarithmic?


def curves(record: Mapping[str, Any]) -> Figure | None:
    """Training curves over the steps: one panel per kind of number, stages shaded."""
    runs = _runs(record.get("history") or [])
    panels: list[_Panel] = []
    for title, keys, log in _PANELS:
        lines = [
            (key, run, line)
            for run, rows in runs.items()
            for key in keys
            if len(line := _line(rows, key, log)) > 1 and (run == "" or key in _COMPARED)
        ]
        if lines:
            panels.append((title, lines, log))
    if not panels:
        return None
    bands = _stage_bands(next(iter(runs.values())))
    said = "; ".join(f"{name}: steps {start:g} to {stop:g}" for name, start, stop in bands)
    end = max(row["step"] for rows in runs.values() for row in rows)
    layout, height = _panels_layout(panels, len(runs), bands, end, 2 if len(panels) > 1 else 1)
    narrow = _panels_layout(panels, len(runs), bands, end, 1)
    return Figure(
        "curves", "Curves", said or "training curves", _panel_lines(panels, len(runs)), layout, height, narrow
    )


def _panel_lines(panels: Sequence[_Panel], n_runs: int) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = []
    named_runs: set[str] = set()
    for i, (_, lines, _) in enumerate(panels):
        n = "" if i == 0 else str(i + 1)
        own = [key for key, run, _ in lines if run == ""]
        for key, run, line in lines:
            j = own.index(key) if run == "" else 0
            colour = _LINES[j % len(_LINES)] if run == "" else "@one-shot"
            called = _RUN_NAMES.get(run, run)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(line) <= 40 else "lines",
                    "name": called if n_runs > 1 else key.replace("_", " "),
                    "showlegend": called not in named_runs,
                    "x": [x for x, _ in line],
                    "y": [y for _, y in line],
                    "xaxis": f"x{n}",
                    "yaxis": f"y{n}",
                    "line": {"color": colour, "width": 2, "dash": "dot" if j == 1 else "solid"},
                    "marker": {"size": 5, "color": colour},
                }
            )
            named_runs.add(called)
    return data


def _panels_layout(
    panels: Sequence[_Panel], n_runs: int, bands: Sequence[tuple[str, float, float]], end: float, n_columns: int
) -> tuple[dict[str, Any], int]:
    """Where the panels sit, in so many columns, and how high all of them are."""
    n_rows = -(-len(panels) // n_columns)
    layout: dict[str, Any] = {
        "showlegend": n_runs > 1,
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 0.995, "yanchor": "top", "yref": "container"},
        "hovermode": "x",
        "margin": {"l": 56, "r": 16, "t": 56 if n_runs > 1 else 40, "b": 40},
        "annotations": [],
        "shapes": [],
    }
    for i, (title, lines, log) in enumerate(panels):
        n, (row, column) = "" if i == 0 else str(i + 1), divmod(i, n_columns)
        left, right = column / n_columns + (0.05 if column else 0), (column + 1) / n_columns
        right -= 0.03 if column + 1 < n_columns else 0
        gap = 0.32 / n_rows if n_rows > 1 else 0
        top = 1 - row / n_rows - (gap / 2 if row else 0)
        bottom = 1 - (row + 1) / n_rows + (gap / 2 if row < n_rows - 1 else 0)
        last = row == n_rows - 1 or i + n_columns >= len(panels)
        layout[f"xaxis{n}"] = {
            "domain": [left, right],
            "anchor": f"y{n}",
            "range": [0, end or 1],
            "title": {"text": "step" if last else ""},
        }
        layout[f"yaxis{n}"] = {"domain": [bottom, top], "anchor": f"x{n}", "type": "log" if log else "linear"}
        own = [key for key, run, _ in lines if run == ""]
        listed = (key.replace("_", " ") + (" (dotted)" if j == 1 else "") for j, key in enumerate(own))
        named = title if len(own) < 2 and title != "residuals" else title + ": " + ", ".join(listed)
        layout["annotations"].append(_panel_title(named, left, top))
        layout["shapes"] += [_band(start, stop, n, k) for k, (_, start, stop) in enumerate(bands)]
        if i < n_columns:
            wide = [(name, start) for name, start, stop in bands if stop - start > 0.1 * end]
            layout["annotations"] += [_band_name(name, start, n) for name, start in wide]
    return layout, 60 + 240 * n_rows


_RUN_NAMES = {"": "this run", "one_shot": "one-shot, same retraining"}
_COMPARED = ("loss", "metric", "accuracy", "valid", "sparsity")  # what is drawn of the baseline


def _runs(history: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows per run, the run itself under "". Stages `one_shot.*` are the baseline's.

    Steps are counted on through a whole job; the baseline is moved to where the compression itself begins, so that
    both are seen over the same steps.
    """
    own: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    for row in history:
        if is_number(row.get("step")):
            stage = str(row.get("stage") or "")
            (other if stage.startswith("one_shot.") else own).append(dict(row) | {"stage": stage.removeprefix("main.")})
    if not own or not other:
        return {"": own or other} if own or other else {}
    before = [row["step"] for row in own if row["step"] < other[0]["step"]]
    dense = [row["step"] for row in own if row["stage"].startswith("dense")]
    shift = max(before, default=0) - max(dense, default=0)
    return {"": own, "one_shot": [row | {"step": row["step"] - shift} for row in other]}


def _line(rows: Sequence[Mapping[str, Any]], key: str, log: bool) -> list[tuple[float, float]]:
    points = [(row["step"], row[key]) for row in rows if is_number(row.get(key))]
    if key == "sparsity":  # 0.99 and 0.999 look the same; what is kept does not
        points = [(x, 1 - y) for x, y in points]
    if log:
        points = [(x, y) for x, y in points if y > 0]
    stride = -(-len(points) // _MAX_POINTS)
    return points[::stride] if stride > 1 else points


def _stage_bands(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(stage, first step, first step of the next) in order."""
    bands: list[tuple[str, float, float]] = []
    for row in rows:
        name = str(row.get("stage") or "")
        if not bands or bands[-1][0] != name:
            if bands:
                bands[-1] = (*bands[-1][:2], row["step"])
            bands.append((name, row["step"], row["step"]))
        bands[-1] = (*bands[-1][:2], row["step"])
    return [band for band in bands if band[0]]


def _band(start: float, stop: float, n: str, k: int) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": f"x{n}",
        "yref": f"y{n} domain",
        "x0": start,
        "x1": stop,
        "y0": 0,
        "y1": 1,
        "fillcolor": "@band" if k % 2 else "@panel",
        "line": {"width": 0},
        "layer": "below",
    }


def _band_name(name: str, start: float, n: str) -> dict[str, Any]:
    return {
        "xref": f"x{n}",
        "yref": f"y{n} domain",
        "x": start,
        "y": 1,
        "xanchor": "left",
        "yanchor": "top",
        "xshift": 4,
        "text": name,
        "showarrow": False,
        "font": {"size": 11, "color": "@muted"},
    }


def _panel_title(text: str, x: float, y: float) -> dict[str, Any]:
    return {
        "xref": "paper",
        "yref": "paper",
        "x": x,
        "y": y,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "text": text,
        "showarrow": False,
        "font": {"size": 13, "color": "@ink"},
    }
