"""The printed before/after table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from secateur.budget import kinds
from secateur.report import levels, words
from secateur.report.verdict import RUNTIMES, findings, headline, latency, runtime_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = (
    ("dense", "dense"),
    ("one_shot_raw", "one-shot, raw"),
    ("one_shot", "one-shot"),
    ("control", "small dense"),
    ("compressed", "compressed"),
)


def summary(record: Mapping[str, Any], width: int = 200) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of the before/after table: one column per net that was measured, and dense/compressed.

    `width` in characters: below 100 the raw one-shot column is left out, below 130 the spread of the latencies.
    """
    shown = [c for c in COLUMNS if record.get(c[0]) or c[0] == "compressed"]
    nets = [(key, title) for key, title in shown if width >= 100 or key != "one_shot_raw"]
    rows: list[list[str]] = []

    def add(label: str, show: Callable[[Mapping[str, Any]], str], ratio: str = "") -> None:
        cells = [show(record[key]) for key, _ in nets]
        if any(cell != words.NONE for cell in cells):
            rows.append([label, *cells, ratio])

    def number(key: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda net: net.get(key)

    dense, small = record["dense"], record["compressed"]
    measured = small.get("metric") or dense.get("metric") or {}
    label = str(measured.get("name", "metric")) + (", %" if words.is_fraction(measured) else "")
    split = measured.get("split")
    add(label, lambda net: _metric(net.get("metric"), split))
    add("loss", lambda net: words.number((net.get("metric") or {}).get("loss")))
    add("calibration error, %", lambda net: words.hundredths((net.get("metric") or {}).get("calibration_error")))
    named = {row["name"] for row in record.get("budget") or ()}
    for kind, meter in kinds.counted().items():
        if not meter.shown and kind not in named:
            continue
        value, label = number(kind), "file" if meter.unit == "bytes" else words.heading(meter.unit)
        add(label, lambda net, v=value, m=meter: words.short(m.unit, v(net)), words.ratio(value(dense), value(small)))  # type: ignore[misc]
    bits = number("weight_bits")
    add("weight bits", lambda net: words.big(bits(net)), words.ratio(bits(dense), bits(small)))
    for runtime in runtimes(record):
        add(
            f"{runtime_name(runtime)}",
            lambda net, r=runtime: _time(net, r, width >= 130),  # type: ignore[misc]
            words.ratio(latency(dense, runtime), latency(small, runtime)),
        )
    return ["", *(title for _, title in nets), "ratio"], rows


def runtimes(record: Mapping[str, Any]) -> list[str]:
    """Runtimes with a measured latency, ours first."""
    seen = {r for key, _ in COLUMNS for r, t in ((record.get(key) or {}).get("latency_ms") or {}).items() if t}
    return [r for r in RUNTIMES if r in seen] + sorted(seen - set(RUNTIMES))


def print_summary(record: Mapping[str, Any], console: Console | None = None) -> None:
    """Print headline, table, budgets and findings to `console` (default: standard output)."""
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    out = console or Console(highlight=False)
    out.print()
    out.print(Text(headline(record), style="bold"))
    out.print(_table(record, out.width))
    cpu = record["cpu"]
    facts = [cpu.get("name"), cpu.get("isa"), f"{cpu['threads']} thread(s)" if cpu.get("threads") else None]
    out.print(Text("; ".join([", ".join(str(f) for f in facts if f), "ratio: dense / compressed"])))
    for row, said in zip(record["budget"], budget_lines(record), strict=True):
        out.print(Text(said, style={True: "green", False: "red"}.get(row.get("met"), "")))  # type: ignore[call-overload]
    if found := levels.rows(record):
        out.print(Text(levels.said(record), style="bold"))
        out.print(_grid(levels.TITLES, found))
    style = {"won": ("+", "green"), "not_won": ("-", "yellow"), "failed": ("!", "red")}
    for finding in findings(record):
        sign, colour = style[finding.kind]
        out.print(f"[{colour}]{sign}[/] {escape(finding.text)}")


def budget_lines(record: Mapping[str, Any]) -> list[str]:
    """One line for each limit: asked, reached, met."""
    said = {True: " met", False: " NOT MET", "predicted": " met: predicted"}
    return [
        f"budget {row['name']}: asked {words.amount(row['name'], row['asked'])}, "
        f"reached {words.amount(row['name'], row.get('reached'))}{_read(row)}{said.get(row.get('met'), '')}"  # type: ignore[call-overload]
        for row in record["budget"]
    ]


def _read(row: Mapping[str, Any]) -> str:
    """What a reading says beside its value."""
    if row.get("margin") is None:
        return ""
    name, runs = row["name"], f", {row['runs']} runs" if row.get("runs") else ""
    predicted = f"; predicted {words.amount(name, row['predicted'])}" if row.get("predicted") is not None else ""
    return f" (± {words.amount(name, row['margin'])}{runs}{predicted})"


def _table(record: Mapping[str, Any], width: int) -> Table:
    return _grid(*summary(record, width))


def _grid(titles: list[str], rows: list[list[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, title in enumerate(titles):
        # The first column and the ratio are never cut; a number that is cut says so by an ellipsis.
        fixed = max([len(title), *(len(row[i]) for row in rows)], default=0) if i in (0, len(titles) - 1) else None
        table.add_column(title, justify="left" if i == 0 else "right", no_wrap=True, min_width=fixed)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names are data, never markup
    return table


def _metric(metric: Mapping[str, Any] | None, split: str | None) -> str:
    """The value without its unit; one that was read on another split than the rest says so."""
    text = words.metric(metric).replace(" %", "")
    other = (metric or {}).get("split")
    return f"{text} ({other})" if text != words.NONE and other and split and other != split else text


def _time(net: Mapping[str, Any], runtime: str, with_spread: bool) -> str:
    times = (net.get("latency_ms") or {}).get(runtime)
    if not times:
        return words.NONE
    spread = f" ({_range(times['p10'], times['p90'])})" if with_spread and times.get("p10") and times.get("p90") else ""
    return words.milliseconds(times["median"]) + spread


def _range(low: float, high: float) -> str:
    a, b = words.milliseconds(low), words.milliseconds(high)
    number, _, unit = a.partition(" ")
    return f"{number} to {b}" if b.endswith(unit) else f"{a} to {b}"
