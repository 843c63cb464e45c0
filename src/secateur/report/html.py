"""`report.html`, built from a record alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from secateur.report import document, levels, next_steps, records, words
from secateur.report.figure import Figure
from secateur.report.figures import build
from secateur.report.tables import summary
from secateur.report.verdict import (
    findings,
    headline,
    kernel_of,
    latency,
    reference_latency,
    runtime_name,
    steps,
)
from secateur.shell import saving

NAME = "report.html"


def report(folder: str | Path) -> Path:
    """Rebuild `folder/report.html` from `folder/report.json`; the page's path."""
    path = Path(folder)
    return write(path if path.is_dir() else path.parent, records.read(path))


def write(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write the page of a checked record into `folder`, atomically; its path."""
    path = Path(folder) / NAME
    saving.write_bytes(path, render(record).encode("utf-8"))
    return path


def render(record: Mapping[str, Any]) -> str:
    """The whole page as text. MissingExtraError without plotly, FormatError for a record that is not of schema 1."""
    records.check(dict(record))
    figures = build(record)
    title = f"{record['model']} on {record['data']}"
    body = "\n".join(
        part
        for part in (
            _top(record),
            _verdict(record),
            _cards(record),
            _before_after(record, figures),
            _budget(record, figures),
            levels.section(record),
            next_steps.section(record),
            next_steps.left_out(record),
            _layers(record, figures),
            _bytes(record, figures),
            _training(record, figures),
            _verify(record),
            _provenance(record),
        )
        if part
    )
    version = str(record["versions"].get("secateur", ""))
    return document.page(f"{title} · Secateur report", body, figures, version, "report.json")


def _top(record: Mapping[str, Any]) -> str:
    cpu = record["cpu"]
    facts = [
        f"<b>{escape(record['model'])}</b> on <b>{escape(record['data'])}</b>",
        f"seed {record['seed']}",
        escape(str(record["date"])[:16].replace("T", " ")) if record.get("date") else "",
        escape(", ".join(str(v) for v in (cpu.get("name"), cpu.get("isa")) if v)),
        f"{cpu['threads']} thread{'s' if cpu['threads'] != 1 else ''}" if cpu.get("threads") else "",
    ]
    return (
        f'<header class="top"><h1>{escape(headline(record))}</h1>'
        f'<p class="facts">{" · ".join(f for f in facts if f)}</p></header>'
    )


def _verdict(record: Mapping[str, Any]) -> str:
    titles = {"failed": "Failed", "won": "What was won", "not_won": "What was not"}
    every = findings(record)
    boxes = []
    for kind, title in titles.items():
        items = "".join(f"<li>{escape(f.text)}</li>" for f in every if f.kind == kind)
        if items:
            boxes.append(f'<div class="panel {kind}"><h3>{title}</h3><ul>{items}</ul></div>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in record.get("notes") or [])
    if notes:
        boxes.append(f'<div class="panel not_won"><h3>Notes</h3><ul>{notes}</ul></div>')
    if not boxes:
        boxes.append('<div class="panel">Nothing was measured.</div>')
    return document.section("verdict", "Verdict", f'<div class="verdict">{"".join(boxes)}</div>')


def _cards(record: Mapping[str, Any]) -> str:
    dense, small = record["dense"], record["compressed"]
    cards = []
    before, after = dense.get("metric"), small.get("metric")
    if after and after.get("value") is not None:
        cards.append(_metric_card(before, after))
    cards.append(_card("File size", dense.get("nbytes"), small.get("nbytes"), words.nbytes))
    runtime, reference = reference_latency(record)
    ours = latency(small, "engine")
    cards.append(_card("Latency of a call", reference, ours, words.milliseconds, f" in {runtime_name(runtime)}"))
    cards.append(_card("Nonzero weights", dense.get("nnz"), small.get("nnz"), words.count))
    cards.append(_card("MACs an example", dense.get("macs"), small.get("macs"), words.big))
    shown = "".join(cards)
    return f'<div class="cards">{shown}</div>' if shown else ""


def _card(what: str, before: float | None, after: float | None, show: Any, where: str = "") -> str:
    if after is None:
        return ""
    pill = ""
    if before and after:
        won = before / after >= 1.005
        pill = f'<span class="pill{"" if won else " no"}">{words.ratio(before, after)}</span>'
    was = f'<div class="was">dense{escape(where)}: {show(before)}</div>' if before is not None else ""
    return (
        f'<div class="panel card"><div class="what">{what}</div><div class="now">{show(after)}</div>{was}{pill}</div>'
    )


def _metric_card(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    name = str(after["name"])
    pill = ""
    if before and before.get("value") is not None:
        gap = after["value"] - before["value"]
        good = gap >= 0 if words.higher_is_better(after) else gap <= 0
        text = f"{100 * gap:+.2f} points" if words.is_fraction(after) else f"{gap:+.3g}"
        pill = f'<span class="pill{"" if good else " no"}">{text.replace("-", "−")}</span>'
    was = f'<div class="was">dense: {escape(words.metric(before))}</div>' if before else ""
    return (
        f'<div class="panel card"><div class="what">{escape(name[:1].upper() + name[1:])}</div>'
        f'<div class="now">{escape(words.metric(after, False))}</div>{was}{pill}</div>'
    )


def _before_after(record: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    titles, rows = summary(record)
    if not rows:
        return ""
    strong = titles.index("compressed") if "compressed" in titles else -1  # a record without any figure of it
    head = "".join(f'<th scope="col"{_class(i == strong, "strong")}>{escape(t)}</th>' for i, t in enumerate(titles))
    lines = []
    for row in rows:
        cells = "".join(f"<td{_class(i == strong, 'strong')}>{escape(c)}</td>" for i, c in enumerate(row) if i)
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    caption = (
        "Ratio: dense / compressed. Accuracy with its standard error; latency: median of one call and its 10th to 90th "
        "percentile. Nonzeros and MACs: all weights, not biases and norms."
    )
    table = (
        f'<div class="panel scroll"><table><caption><span>{caption}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    plots = (
        document.figure(figures.get("size"))
        + document.figure(figures.get("metric"))
        + document.figure(figures.get("latency"), wide=True)
    )
    return document.section("before-after", "Before and after", f'<div class="grid">{plots}</div>{table}')


def _budget(record: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    if not record["budget"]:
        return ""
    rows = []
    for item in record["budget"]:
        name, met = item["name"], item.get("met")
        asked, reached = words.amount(name, item.get("asked")), words.amount(name, item.get("reached"))
        state = (
            words.NONE
            if met is None
            else '<span class="met">met: predicted</span>'
            if met == "predicted"
            else '<span class="met">met</span>'
            if met
            else '<span class="missed">not met</span>'
        )
        rows.append(
            f'<tr><th scope="row" class="name">{escape(name)}</th><td>{escape(asked)}</td>'
            f"<td>{escape(reached)}</td><td>{state}</td></tr>"
        )
    head = '<th scope="col">Limit</th><th scope="col">Asked</th><th scope="col">Reached</th><th scope="col">State</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    plot = document.figure(figures.get("frontier"), wide=True)
    grid = f'<div class="grid">{plot}</div>' if plot else ""
    return document.section("budget", "Budget", f'{grid}<div class="panel scroll">{table}</div>')


# Columns of the layer table: title, text or number, how it is shown, the value to sort by.
def _layer_cells(layer: Mapping[str, Any], timed: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    n = math.prod(layer["shape"])
    density = layer["nnz"] / n if n else None
    coded, ideal = layer.get("nbytes"), layer.get("bound_nbytes")
    bits = layer.get("bits")
    return [
        ("left name", str(layer["name"]), layer["name"]),
        ("left", str(layer.get("op") or words.NONE), layer.get("op") or ""),
        ("", "×".join(f"{s:g}" for s in layer["shape"]) or "1", n),
        ("", words.count(layer["nnz"]), layer["nnz"]),
        ("", words.NONE if density is None else f"{100 * density:.3g} %", density),
        ("", words.NONE if bits is None else f"{bits:.3g}", bits),
        ("left", _acting(layer), layer.get("constraint") or ""),
        ("left", " + ".join(str(layer[k]) for k in ("layout", "codec") if layer.get(k)) or words.NONE, ""),
        ("", words.count(coded), coded),
        (
            "",
            words.NONE if not coded or not ideal else f"{coded / ideal:.3f}",
            coded / ideal if coded and ideal else None,
        ),
        ("", words.big(layer.get("macs")), layer.get("macs")),
        ("left", kernel_of(layer, timed) or words.NONE, kernel_of(layer, timed)),
    ]


def _acting(layer: Mapping[str, Any]) -> str:
    return str(layer.get("constraint") or ("left as it is" if layer.get("left_out") else words.NONE))


_LAYER_TITLES = (
    "Layer", "Op", "Shape", "Nonzeros", "Density", "Bits", "Constraint", "Stored as", "Bytes", "÷ ideal", "MACs",
    "Kernel",
)  # fmt: skip


def _layers(record: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    layers = record["layers"]
    if not layers:
        return ""
    timed = {s["name"]: s for s in steps(record)}
    rows = [_layer_cells(layer, timed) for layer in layers]
    used = [i for i in range(len(_LAYER_TITLES)) if any(row[i][1] != words.NONE for row in rows)]
    head = "".join(
        f'<th scope="col" class="{rows[0][i][0]}"><button type="button">{_LAYER_TITLES[i]}</button></th>' for i in used
    )
    body = "".join(f"<tr>{''.join(_cell(*row[i]) for i in used)}</tr>" for row in rows)
    foot = _foot(record, rows, used)
    caption = "Ideal: log2 C(n, nnz) + nnz × entropy of the values + codebook, in bytes. A heading sorts."
    long = " long" if len(rows) > 16 else ""
    table = (
        f'<div class="panel scroll{long}"><table class="sortable"><caption><span>{caption}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )
    figure = document.figure(figures.get("layers"), wide=True)
    return document.section("layers", "Layers", f'<div class="grid">{figure}</div>{table}')


def _foot(record: Mapping[str, Any], rows: Sequence[Sequence[tuple[str, str, Any]]], used: Sequence[int]) -> str:
    """The sums: of the layers as counted, of what else is in the file, and the file."""
    counted = [r for r in rows if r[1][1] not in ("bias", "norm", "vector")]
    coded = sum(r[8][2] or 0 for r in rows)
    lines = [("All weights", {3: sum(r[3][2] for r in counted), 10: sum(r[10][2] or 0 for r in counted)})]
    whole = record["compressed"].get("nbytes")
    if coded and whole:
        lines += [("Rest of the file: graph, names, other tensors", {8: whole - coded}), ("The file", {8: whole})]
    made = []
    for title, values in lines:
        shown = {i: words.big(n) if i == 10 else words.count(n) for i, n in values.items()}
        cells = (shown.get(i, "") for i in used[1:])
        made.append(f'<tr><td class="left">{title}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    return "".join(made)


def _cell(css: str, text: str, value: Any) -> str:
    key = "" if value is None else str(value)
    sort = "" if "left" in css else f' data-value="{escape(key)}"'
    shown = escape(text).replace("_", "_<wbr>") if css == "left" else escape(text)  # long names may break there
    return f"<td{_class(bool(css), css)}{sort}>{shown}</td>"


def _bytes(record: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    figure = document.figure(figures.get("bytes"), wide=True)
    hint = "Every part of the packed file (.sct) by its size; select a part to look into it."
    return document.section("where", "Where the bytes are", f'<div class="grid">{figure}</div>', hint) if figure else ""


def _training(record: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    stages = record["stages"]
    figure = figures.get("curves")
    if not stages and figure is None:
        return ""
    content = f'<div class="grid">{document.figure(figure, wide=True)}</div>' if figure else ""
    if stages:
        # Plain facts only: levels per layer and the like are in report.json.
        facts = (k for stage in stages for k, v in stage.items() if isinstance(v, str | int | float | None))
        extra = [k for k in dict.fromkeys(facts) if k not in ("name", "seconds")][:6]
        head = "".join(
            f'<th scope="col">{escape(t)}</th>' for t in ("Stage", "Time", *(k.replace("_", " ") for k in extra))
        )
        rows = "".join(
            f'<tr><th scope="row">{escape(str(s["name"]))}</th><td>{words.seconds(s.get("seconds"))}</td>'
            + "".join(f"<td>{escape(_plain(s.get(k)))}</td>" for k in extra)
            + "</tr>"
            for s in stages
        )
        blank = "".join("<td></td>" for _ in extra)
        total = words.seconds(sum(s.get("seconds") or 0 for s in stages))
        content += (
            f'<div class="panel scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
            f'<tfoot><tr><th scope="row">Together</th><td>{total}</td>{blank}</tr></tfoot></table></div>'
        )
    return document.section("training", "Training", content)


def _verify(record: Mapping[str, Any]) -> str:
    verify = record["verify"] or {}
    items = []
    error, tolerance = verify.get("max_abs_error"), verify.get("tolerance")
    if error is not None:
        state = ""
        if tolerance is not None:
            good = words.agrees(verify)
            state = (
                f' <span class="{"met" if good else "missed"}">{"within" if good else "beyond"} {tolerance:.3g}</span>'
            )
        items.append(("Largest difference between engine, ONNX Runtime and PyTorch", f"{error:.3g}{state}"))
    measured = record["compressed"].get("metric") or {"name": "metric"}
    for key, runtime in (("engine", "engine"), ("onnxruntime", "onnxruntime"), ("torch", "torch")):
        value = verify.get(f"metric_{key}")
        if value is not None:
            shown = words.metric({"name": measured["name"], "value": value}, False)
            items.append((f"{measured['name']} in {runtime_name(runtime)}", escape(shown)))
    for column, covered in (record.get("coverage") or {}).items():
        share = f"{covered['n_engine']} of {covered['n_nodes']} nodes run in the engine"
        rest = ", ".join(f"{h['op']} {h['node']!r} ({h['why']})" for h in covered.get("handed_over") or [])
        items.append((f"Coverage, {column} net", escape(f"{share}; ONNX Runtime runs {rest}" if rest else share)))
    known = {"max_abs_error", "tolerance", "metric_engine", "metric_onnxruntime", "metric_torch"}
    items += [(k.replace("_", " "), escape(_plain(v))) for k, v in verify.items() if k not in known]
    return document.section("verification", "Verification", document.facts(items)) if items else ""


def _provenance(record: Mapping[str, Any]) -> str:
    cpu = record["cpu"]
    items = [
        ("Model", escape(record["model"])),
        ("Data", escape(record["data"])),
        ("Seed", str(record["seed"])),
        ("Date", escape(str(record.get("date") or ""))),
        *((k.capitalize() if k != "isa" else "ISA", escape(_plain(v))) for k, v in cpu.items()),
        ("Versions", escape(", ".join(f"{k} {v}" for k, v in record["versions"].items()))),
    ]
    names = {"Name": "CPU"}
    shown = [(names.get(k, k), v) for k, v in items if v]
    recipe = record.get("recipe")
    more = f"<details><summary>Recipe, as resolved</summary><pre>{escape(recipe)}</pre></details>" if recipe else ""
    return document.section("provenance", "Provenance", document.facts(shown, more))


def _plain(value: Any) -> str:
    if value is None:
        return words.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return json.dumps(value)[:200]
    return str(value)


def _class(condition: bool, name: str) -> str:
    return f' class="{name}"' if condition else ""
