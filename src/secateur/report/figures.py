"""The report's plots as plain Plotly specifications (dicts), built from a record without Plotly installed.

A colour written `@name` is a colour of the page's theme (`page/style.css`, `--name`); the page fills it in, so that
the plots follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.budget import kinds
from secateur.report import words
from secateur.report.figure import Figure
from secateur.report.records import is_number
from secateur.report.tables import COLUMNS, runtimes
from secateur.report.training_figure import curves
from secateur.report.verdict import runtime_name

_COLOURS = {
    "dense": "@dense",
    "one_shot_raw": "@raw",
    "one_shot": "@one-shot",
    "control": "@control",
    "compressed": "@accent",
}
_SPLITS = {"test": "the test set", "validation": "validation data"}


def build(record: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures that the record has numbers for, by name."""
    made = (
        size(record),
        metric(record),
        latency(record),
        frontier(record),
        layers(record),
        bytes_map(record),
        curves(record),
    )
    return {figure.name: figure for figure in made if figure is not None}


def size(record: Mapping[str, Any]) -> Figure | None:
    """File size per net, horizontal bars."""
    nets = [(key, title, record[key]["nbytes"]) for key, title in COLUMNS if (record.get(key) or {}).get("nbytes")]
    if not nets:
        return None
    return Figure(
        name="size",
        title="File size",
        text="; ".join(f"{title}: {words.nbytes(value)}" for _, title, value in nets),
        data=[_bars([t for _, t, _ in nets], [v for *_, v in nets], [words.nbytes(v) for *_, v in nets], _paint(nets))],
        layout=_bar_layout(max(v for *_, v in nets), "bytes"),
        height=_bar_height(len(nets)),
    )


def metric(record: Mapping[str, Any]) -> Figure | None:
    """The test metric per net, points with two standard errors."""
    nets = [
        (key, title, record[key]["metric"])
        for key, title in COLUMNS
        if ((record.get(key) or {}).get("metric") or {}).get("value") is not None
    ]
    if not nets:
        return None
    scale = 100 if words.is_fraction(nets[0][2]) else 1
    name = str(nets[0][2]["name"])
    spans = {key: (scale * m["value"], 2 * scale * (words.standard_error(m) or 0)) for key, _, m in nets}
    # The raw one-shot net is often far below the others; the axis is for telling these apart.
    near = [s for key, s in spans.items() if key != "one_shot_raw"] or list(spans.values())
    low, high = min(v - e for v, e in near), max(v + e for v, e in near)
    pad = max(0.25 * (high - low), 1e-3 * abs(high), 1e-6)
    shown = [n for n in nets if low - pad <= spans[n[0]][0] <= high + pad]
    hidden = [f"{title}: {words.metric(m)}" for key, title, m in nets if (key, title, m) not in shown]
    return Figure(
        name="metric",
        title=f"{name[:1].upper()}{name[1:]} on {_SPLITS.get(str(nets[-1][2].get('split', 'test')), 'held-out data')}",
        text="; ".join(f"{title}: {words.metric(m)}" for _, title, m in nets),
        data=[
            {
                "type": "scatter",
                "mode": "markers+text",
                "orientation": "h",
                "x": [spans[key][0] for key, *_ in shown],
                "y": [t for _, t, _ in shown],
                "text": [words.metric(m, False) for *_, m in shown],
                "textposition": "top center",
                "cliponaxis": False,
                "error_x": {
                    "type": "data",
                    "array": [spans[key][1] for key, *_ in shown],
                    "thickness": 1.5,
                    "width": 5,
                    "color": "@muted",
                },
                "marker": {"size": 12, "color": _paint(shown)},
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        ],
        layout={
            "xaxis": {
                "range": [low - pad, high + pad],
                "title": {"text": (f"{name}, %" if scale == 100 else name) + "; bars: two standard errors"},
            },
            "yaxis": {"type": "category", "autorange": "reversed", "range": [len(shown) - 0.4, -0.7]},
            "annotations": _corner("off this scale: " + "; ".join(hidden)) if hidden else [],
            "showlegend": False,
            "margin": {"l": 96, "r": 24, "t": 36 if hidden else 18, "b": 48},
        },
        height=_bar_height(len(shown)) + 24,
    )


def latency(record: Mapping[str, Any]) -> Figure | None:
    """Time of one call per runtime and net, bars with the 10th to 90th percentile."""
    rows = [
        (runtime, key, title, times)
        for runtime in runtimes(record)
        for key, title in COLUMNS
        if (times := ((record.get(key) or {}).get("latency_ms") or {}).get(runtime))
    ]
    if not rows:
        return None
    names = [[runtime_name(r) for r, *_ in rows], [title for *_, title, _ in rows]]
    medians = [t["median"] for *_, t in rows]
    low = [min(t.get("p10") or t["median"], t["median"]) for *_, t in rows]
    high = [max(t.get("p90") or t["median"], t["median"]) for *_, t in rows]
    bars = _bars([], medians, [], [_COLOURS[key] for _, key, *_ in rows])
    bars |= {
        "y": names,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [h - m for h, m in zip(high, medians, strict=True)],
            "arrayminus": [m - a for m, a in zip(medians, low, strict=True)],
            "thickness": 1,
            "width": 3,
            "color": "@muted",
        },
        "hoverinfo": "skip",
    }
    # The numbers stand behind the whiskers, as a trace of their own.
    labels = {
        "type": "scatter",
        "mode": "text",
        "x": high,
        "y": names,
        "text": ["  " + words.milliseconds(m) for m in medians],
        "textposition": "middle right",
        "cliponaxis": False,
        "customdata": [f"{words.milliseconds(a)} to {words.milliseconds(h)}" for a, h in zip(low, high, strict=True)],
        "hovertemplate": "%{text}, 10th to 90th percentile %{customdata}<extra></extra>",
    }
    layout = _bar_layout(max(high), "milliseconds a call; whiskers: 10th to 90th percentile")
    layout["xaxis"]["range"] = [0, 1.12 * max(high)]
    layout["yaxis"] = {"type": "multicategory", "autorange": "reversed", "dividercolor": "@line"}
    layout["bargap"] = 0.3
    layout["margin"]["l"] = 190
    said = "; ".join(f"{title} in {runtime_name(r)}: {words.milliseconds(t['median'])}" for r, _, title, t in rows)
    height = 90 + 28 * len(rows)
    axis = {"range": [0, 1.5 * max(high)], "title": {"text": "ms a call; to the 90th percentile"}}
    narrow = layout | {"xaxis": layout["xaxis"] | axis, "margin": layout["margin"] | {"l": 150}}
    return Figure("latency", "Latency of one call", said, [bars, labels], layout, height, (narrow, height))


def frontier(record: Mapping[str, Any]) -> Figure | None:
    """The sizes a search went through and what accuracy each cost, with the limits that were asked for."""
    seen = [p for p in record.get("frontier") or [] if is_number(p.get("nbytes")) and is_number(p.get(kinds.DROP))]
    if len(seen) < 2:
        return None
    seen = sorted(seen, key=lambda p: p["nbytes"])
    drops = [100 * p[kinds.DROP] for p in seen]
    asked = {item["name"]: item.get("asked") for item in record["budget"]}
    line = {"line": {"color": "@muted", "width": 1, "dash": "dash"}, "type": "line"}
    shapes = []
    if asked.get("nbytes"):
        shapes.append(line | {"x0": asked["nbytes"], "x1": asked["nbytes"], "yref": "paper", "y0": 0, "y1": 1})
    if asked.get(kinds.DROP) is not None:
        level = 100 * asked[kinds.DROP]
        shapes.append(line | {"xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level})
    return Figure(
        name="frontier",
        title="What the search saw: size against accuracy",
        text="; ".join(f"{words.nbytes(p['nbytes'])}: drop {d:.2f} points" for p, d in zip(seen, drops, strict=True)),
        data=[
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [p["nbytes"] for p in seen],
                "y": drops,
                "customdata": [words.nbytes(p["nbytes"]) for p in seen],
                "line": {"color": "@accent", "width": 1.5},
                "marker": {"size": 9, "color": "@accent"},
                "hovertemplate": "%{customdata}: drop %{y:.2f} points<extra></extra>",
            }
        ],
        layout={
            "xaxis": {"type": "log", "title": {"text": "bytes of the file (log); dashed: the limits asked for"}},
            "yaxis": {"title": {"text": "accuracy drop on validation, points"}},
            "shapes": shapes,
            "showlegend": False,
            "margin": {"l": 64, "r": 16, "t": 16, "b": 48},
        },
        height=320,
    )


def layers(record: Mapping[str, Any]) -> Figure | None:
    """Density and bits per layer, two panels over the same layers in network order. Biases and norms are left out."""
    items = [
        layer for layer in record["layers"] if math.prod(layer["shape"]) > 0 and layer.get("op") not in ("bias", "norm")
    ]
    if not items:
        return None
    names = _unique(_short([layer["name"] for layer in items]))
    density = [100 * (layer["nnz"] / math.prod(layer["shape"])) for layer in items]
    labels = [f"{d:.3g} %" for d in density]
    few = len(items) <= 24
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": names,
            "y": density,
            "text": labels if few else None,
            "textposition": "outside",
            "cliponaxis": False,
            "customdata": [
                f"{words.count(layer['nnz'])} of {words.count(math.prod(layer['shape']))}" for layer in items
            ],
            "marker": {"color": "@accent"},
            "hovertemplate": "%{x}<br>%{y:.3g} % kept: %{customdata}<extra></extra>",
        }
    ]
    bits = [layer.get("bits") for layer in items]
    has_bits = any(b is not None for b in bits)
    slant = -90 if not few else -40 if len(items) > 6 else 0
    layout: dict[str, Any] = {
        "xaxis": {"type": "category", "anchor": "y2" if has_bits else "y", "tickangle": slant, "nticks": 40},
        "yaxis": {
            "title": {"text": "density, %"},
            "domain": [0.42, 1] if has_bits else [0, 1],
            "range": [0, 1.12 * max(density) or 1],
        },
        "showlegend": False,
        "bargap": 0.35,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 40 if len(items) <= 6 else 120},
    }
    if has_bits:
        data.append(
            {
                "type": "bar",
                "x": names,
                "y": bits,
                "yaxis": "y2",
                "text": [f"{b:.3g}" if b is not None else "" for b in bits] if few else None,
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": "@one-shot"},
                "hovertemplate": "%{x}<br>%{y:.3g} bits a value<extra></extra>",
            }
        )
        layout["yaxis2"] = {"title": {"text": "bits"}, "domain": [0, 0.3], "rangemode": "tozero"}
        layout["yaxis2"]["range"] = [0, 1.3 * max(b for b in bits if b is not None) + 0.1]
    said = "; ".join(f"{n}: {d}" for n, d in zip(names[:12], labels[:12], strict=True))
    return Figure("layers", "Density and bits per layer", said, data, layout, 420 if few else 480)


def bytes_map(record: Mapping[str, Any]) -> Figure | None:
    """Where the bytes of the packed file are, as a treemap by kind and part."""
    parts = file_parts(record)
    total = sum(n for _, _, n in parts)
    if total == 0:
        return None
    kinds = list(dict.fromkeys(kind for _, kind, _ in parts))
    sums = {kind: sum(n for _, k, n in parts if k == kind) for kind in kinds}
    colours = {"weight": "@accent", "bias": "@one-shot", "graph": "@control", "header": "@dense", "norm": "@raw"}
    # A kind of one part is shown as that part, without a frame around it.
    single = {kind for kind in kinds if sum(k == kind for _, k, _ in parts) == 1}
    # (id, label, parent, bytes, kind); ids keep equal names apart.
    nodes: list[tuple[str, str, str, float, str]] = [("r", "model.sct", "", total, "")]
    nodes += [(f"k{i}", kind, "r", sums[kind], kind) for i, kind in enumerate(kinds) if kind not in single]
    nodes += [
        (f"p{i}", name, "r" if kind in single else f"k{kinds.index(kind)}", n, kind)
        for i, (name, kind, n) in enumerate(parts)
    ]
    return Figure(
        name="bytes",
        title="model.sct, part by part",
        text="; ".join(f"{kind}: {words.nbytes(sums[kind])}, {words.percent(sums[kind] / total)}" for kind in kinds),
        data=[
            {
                "type": "treemap",
                "branchvalues": "total",
                "ids": [node[0] for node in nodes],
                "labels": [node[1] for node in nodes],
                "parents": [node[2] for node in nodes],
                "values": [node[3] for node in nodes],
                "customdata": [words.nbytes(node[3]) for node in nodes],
                "marker": {
                    "colors": ["@band" if not node[4] else colours.get(node[4], "@muted") for node in nodes],
                    "line": {"width": 2, "color": "@panel"},
                },
                "tiling": {"pad": 3},
                "textfont": {"color": ["@on-colour" if node[4] else "@ink" for node in nodes]},
                "texttemplate": "<b>%{label}</b><br>%{customdata}<br>%{percentRoot:.1%}",
                "hovertemplate": "%{label}<br>%{customdata}, %{percentRoot:.1%} of the file<extra></extra>",
            }
        ],
        layout={"margin": {"l": 4, "r": 4, "t": 28, "b": 4}},
        height=400,
    )


def file_parts(record: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(name, kind, bytes) of the packed file's parts: recorded sections, else layers and what is left."""
    ops = {layer["name"]: layer.get("op") for layer in record["layers"]}
    parts = [
        (s["name"] or "constant", _part_kind(s["name"], s.get("kind"), ops), float(s["nbytes"]))
        for s in record.get("sections") or []
    ]
    if parts:
        return [p for p in parts if p[2] > 0]
    parts = [
        (layer["name"], _part_kind(layer["name"], None, ops), float(layer.get("nbytes") or 0))
        for layer in record["layers"]
    ]
    parts = [p for p in parts if p[2] > 0]
    rest = (record["compressed"].get("nbytes") or 0) - sum(n for *_, n in parts)
    return [*parts, ("header, graph, biases", "other", rest)] if parts and rest > 0 else parts


def _part_kind(name: str, kind: str | None, ops: Mapping[str, str | None]) -> str:
    """weight, bias or norm for tensors (by the layer of that name, else by the name itself), else the kind given."""
    if kind not in (None, "tensor", ""):
        return str(kind)
    op = ops.get(name)
    if op is None:
        op = "bias" if name.endswith("bias") else "weight"
    return op if op in ("bias", "norm") else "weight"


def _corner(text: str) -> list[dict[str, Any]]:
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 12}
    return [place | {"text": text, "showarrow": False, "font": {"size": 11, "color": "@muted"}}]


def _bars(names: list[str], values: list[float], texts: list[str], colour: str | list[str]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": names,
        "text": texts,
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": colour},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }


def _bar_layout(largest: float, title: str) -> dict[str, Any]:
    return {
        "xaxis": {"range": [0, 1.28 * largest], "title": {"text": title}, "nticks": 5},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "showlegend": False,
        "bargap": 0.4,
        "margin": {"l": 96, "r": 16, "t": 8, "b": 48},
    }


def _bar_height(n: int) -> int:
    return 90 + 44 * n


def _paint(nets: Sequence[tuple[str, str, Any]]) -> list[str]:
    return [_COLOURS[key] for key, *_ in nets]


def _short(names: Sequence[str]) -> list[str]:
    """Without `.weight` at the end, where all have it: said once is enough."""
    return [n.removesuffix(".weight") for n in names] if all(n.endswith(".weight") for n in names) else list(names)


def _unique(names: Sequence[str]) -> list[str]:
    """Names made different where the model repeats one: a category axis merges equal ones."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out
