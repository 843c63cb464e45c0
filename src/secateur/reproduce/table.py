"""A study's record as a table: plain text for the terminal, Markdown for the file."""

from __future__ import annotations

from functools import partial
from typing import Any

from secateur.report import words
from secateur.reproduce import bar, contest, frontier

Json = dict[str, Any]
_NAMES = {"accuracy": "test", "mse": "test mse", "map": "test mAP", "bits_per_character": "test bpc"}


def table(record: Json, markdown: bool = False) -> str:
    """One row per cell (mean, +- standard deviation over the seeds, range), the goals, the claims and the speed.

    Of the record of several tasks: one row per task where they are held against a bar, else one table after the other.
    """
    if "tasks" in record:
        return _tasks(record, markdown)
    columns, rows = _columns(record), [_row(cell, record) for cell in record["cells"].values()]
    body = lines(columns, rows, markdown)
    n = record["n_cells"]
    refused = f", {n['failed']} were refused or failed" if n.get("failed") else ""
    notes = [
        f"{n['finished']} of {n['all']} trainings are finished{refused}; seeds {', '.join(record['seeds']) or 'none'}; "
        "mean +- standard deviation over the seeds.",
        "The test figure is that of the written .sct file in the engine; the test part was read once, after everything "
        "had been chosen on validation.",
        *_error(record),
        *_goals(record),
        *(claim_line(c, record["measure"]) for c in record["claims"]),
        *_agreement(record),
        *_latency(record),
        *frontier.lines(record, lambda value: shown(value, record["measure"])),
        *_speed(record),
        *_made(record),
    ]
    title = f"{record['name']}: {record['about']}"
    rows_of = partial(lines, markdown=markdown)
    beside = contest.tables(record, lambda value: shown(value, record["measure"], unit=False), rows_of)
    return "\n".join([f"# {title}" if markdown else title, "", *body, "", *(f"- {x}" for x in notes), *beside])


def _tasks(record: Json, markdown: bool) -> str:
    each = record["tasks"]
    if not all("bar" in r["plan"] for r in each.values()):
        return "\n\n".join(table(r, markdown) for r in each.values())
    body = lines(bar.columns(each), bar.lines(each, shown), markdown)
    title = f"{record['name']}: {record['about']}"
    return "\n".join([f"# {title}" if markdown else title, "", *body, "", *(f"- {x}" for x in bar.notes(each))])


def shown(value: float, measure: Json, signed: bool = False, unit: bool = True) -> str:
    """A value or a difference of the measure, as `99.28 %` or `+0.33 points`."""
    scaled = measure["scale"] * value
    name = "points" if signed and measure["unit"] == "%" else measure["unit"]
    text = f"{scaled:+.2f}" if signed and measure["unit"] == "%" else f"{scaled:.2f}"
    if measure["unit"] != "%":
        text = f"{scaled:+.4g}" if signed else f"{scaled:.4g}"
    return f"{text} {name}".strip() if unit else text


def claim_line(claim: Json, measure: Json) -> str:
    """One sentence: the verdict, what was said, what was found, what had been expected."""
    said = gain_shown(claim, claim["claimed"], measure)
    margin = f", margin {gain_shown(claim, claim['margin'], measure)}" if claim["margin"] else ""
    expect = gain_range(claim, claim["expect"], measure)
    text = f"{claim['verdict']}: {claim['says']}: claimed {said}{margin}, expected {expect}"
    if claim["gain"] is not None:
        g, (ours, theirs) = claim["gain"], claim["cells"]
        text += f", found {gain_shown(claim, g['mean'], measure)} ({ours} against {theirs}"
        if g["low"] is not None:
            text += f"; interval {gain_range(claim, g, measure)}"
        text += ")"
    return text + (f": {claim['why']}." if claim.get("why") else ".")


def gain_shown(claim: Json, value: float, measure: Json) -> str:
    """A gain as the claim's figure is written: a difference in the measure, or a ratio."""
    return shown(value, measure, signed=True) if claim["figure"] == "measure" else f"{value:.3g}x"


def gain_range(claim: Json, ends: Json, measure: Json) -> str:
    """`low` and `high` of a gain, as `-0.10 to +0.10 points`."""
    if claim["figure"] != "measure":
        return f"{ends['low']:.3g} to {ends['high']:.3g}x"
    return f"{shown(ends['low'], measure, signed=True, unit=False)} to {shown(ends['high'], measure, signed=True)}"


def markdown_rows(columns: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, its first column to the left."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in (columns, rule, *rows)]


def _columns(record: Json) -> list[str]:
    unit = f", {record['measure']['unit']}" if record["measure"]["unit"] else ""
    test = _NAMES[record["measure"]["name"]]
    return [
        *("net", "nonzeros", "of dense", "biases", ".sct, bytes", f"{test}{unit}", "range", "seeds"),
        *(f"valid{unit}", "epochs", "seconds"),
    ]


def _row(cell: Json, record: Json) -> list[str]:
    measure, nnz, test = record["measure"], cell["nnz"]["mean"], cell["test"]

    def mean(key: str, form: str) -> str:
        return format(cell[key]["mean"], form) if key in cell else ""

    def plain(value: float) -> str:
        return shown(value, measure, unit=False)

    return [
        cell["title"],
        f"{nnz:,.0f}",
        f"{record['n_weights'] / max(nnz, 1):.1f}x",
        mean("n_biases", ",.0f"),
        mean("nbytes", ",.0f"),
        f"{plain(test['mean'])} +- {plain(test['sd'])}",
        f"{plain(test['min'])}-{plain(test['max'])}",
        str(cell["n_seeds"]),
        plain(cell["valid"]["mean"]),
        mean("epochs", "g"),
        mean("seconds", ".0f"),
    ]


def lines(columns: list[str], rows: list[list[str]], markdown: bool) -> list[str]:
    """A table as Markdown or for a terminal, its first column to the left."""
    return (markdown_rows if markdown else _plain)(columns, rows)


def _plain(columns: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(r[i]) for r in (columns, *rows)) for i in range(len(columns))]
    out = []
    for cells in (columns, *rows):
        rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        out.append("  ".join([cells[0].ljust(widths[0]), *rest]))
    return [out[0], "-" * len(out[0]), *out[1:]]


def _error(record: Json) -> list[str]:
    """How far an accuracy on so many examples is off by chance, at the best cell."""
    counted = [c for c in record["cells"].values() if c["n_test"]]
    if record["measure"]["name"] != "accuracy" or not counted:
        return []
    best = max(counted, key=lambda c: float(c["test"]["mean"]))
    p, n = best["test"]["mean"], best["n_test"]
    error = 100 * (words.standard_error({"name": "accuracy", "value": p, "n_examples": n}) or 0.0)
    return [f"The standard error of one accuracy near {100 * p:.1f} % on {n:,} test examples is {error:.2f} points."]


def _goals(record: Json) -> list[str]:
    out = []
    for g in record["goals"]:
        sizes = "".join(f"{k} <= {v['asked']:,} (largest {v['worst']:,.0f}), " for k, v in g["sizes"].items())
        asked, mean = (shown(x, record["measure"]) for x in (g["measure"], g["test"]["mean"]))
        sign = ">=" if record["measure"]["higher_is_better"] else "<="
        title = record["cells"][g["cell"]]["title"]
        out.append(f"{'met' if g['met'] else 'MISSED'}: {title}: {sizes}test {sign} {asked} (mean {mean}).")
    return out


def _agreement(record: Json) -> list[str]:
    ran = [c for c in record["cells"].values() if c["n_test"]]
    least = [c["same_as_onnxruntime"] for c in ran]
    if not ran or None in least:
        return ["ONNX Runtime is not installed: its answers were not compared."] if ran else []
    asked = f"{min(least):,} of {ran[0]['n_test']:,}"
    return [f"Same answer in the engine (.sct) and in ONNX Runtime (.onnx): at least {asked}."]


def _latency(record: Json) -> list[str]:
    """Each timed net in every runtime."""
    timed = record.get("latency")
    if not timed:
        return []
    wrong = [f"{c['runtime']} on {c['model']}" for c in timed["checks"] if c["agree"] is False]
    each = [
        f"{name}: " + ", ".join(f"{runtime} {1000 * t['median']:.1f}" for runtime, t in times.items())
        for name, times in timed["latency_ms"].items()
    ]
    head = (
        f"Latency, median in us, batch {timed['batch']}, one thread, {timed['cpu']}, {timed['isa']}, all interleaved: "
    )
    said = [f"{runtime} skipped: {why}." for runtime, why in timed["skipped"].items()]
    return [head + "; ".join(each) + ".", *([f"DIFFERENT RESULTS: {', '.join(wrong)}."] if wrong else []), *said]


def _speed(record: Json) -> list[str]:
    out = []
    for seed, found in record["seeds"].items():
        for cell, timed in found["speed"].items():
            times = timed["latency_ms"]
            told = [
                f"{runtime} {1000 * t['median']:.1f} us ({which})"
                for which, by_runtime in (("this net", times["model"]), ("dense", times.get("dense", {})))
                for runtime, t in by_runtime.items()
            ]
            out.append(f"Batch 1, one thread, {timed['isa']}, seed {seed}, {cell}: {', '.join(told)}.")
    return out


def _made(record: Json) -> list[str]:
    """The machines, one line each."""
    return [
        f"{m['cells']} trainings on {m['cpu']}, {m['isa']}"
        + (f", commit {m['commit']}" if m["commit"] else "")
        + f", torch {m['versions'].get('torch', '?')}."
        for m in record["machines"]
    ]
