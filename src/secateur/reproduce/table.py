"""A study's record as a table: plain text for the terminal, Markdown for the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COLUMNS = (
    "net",
    "nonzeros",
    "of dense",
    "biases",
    ".sct, bytes",
    "test, %",
    "range",
    "seeds",
    "valid, %",
    "epochs",
    "seconds",
)


def table(record: dict[str, Any], markdown: bool = False) -> str:
    """One row per part (mean, +- standard deviation over the seeds, range), the claims and the speed."""
    rows = [_row(part, record["n_weights"]) for part in record["parts"].values()]
    n = len(record["seeds"])
    title = f"{record['name']}: {record['about']}"
    n_test = next(iter(record["parts"].values()))["n_test"]
    error = 100 * (0.992 * 0.008 / n_test) ** 0.5
    notes = [
        f"{n} seed(s) {', '.join(record['seeds'])}; mean +- standard deviation over the seeds. The standard error "
        f"of one accuracy near 99.2 % on {n_test:,} test images is {error:.2f} points.",
        "Test accuracy is that of the written .sct file in the engine; the test split was read once, "
        "after everything had been chosen on validation.",
        *_claims(record),
        *_agreement(record),
        *_speed(record),
    ]
    bullets = [f"- {x}" for x in notes]
    return "\n".join([f"# {title}" if markdown else title, "", *lines(_COLUMNS, rows, markdown), "", *bullets])


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> list[str]:
    """A table of texts: the first column to the left, the others to the right."""
    if markdown:
        rule = ["---", *["---:"] * (len(head) - 1)]
        return ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in (head, rule, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    out = []
    for cells in (head, *rows):
        rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        out.append("  ".join([cells[0].ljust(widths[0]), *rest]))
    return [out[0], "-" * len(out[0]), *out[1:]]


def _row(part: dict[str, Any], n_weights: int) -> list[str]:
    nnz, test = part["nnz"]["mean"], part["test"]
    return [
        part["title"],
        f"{nnz:,.0f}",
        f"{n_weights / nnz:.1f}x",
        f"{part['n_biases']['mean']:,.0f}",
        f"{part['nbytes']['mean']:,.0f}",
        f"{100 * test['mean']:.2f} +- {100 * test['sd']:.2f}",
        f"{100 * test['min']:.2f}-{100 * test['max']:.2f}",
        str(part["n_seeds"]),
        f"{100 * part['valid']['mean']:.2f}",
        f"{part['epochs']['mean']:g}",
        f"{part['seconds']['mean']:.0f}",
    ]


def _claims(record: dict[str, Any]) -> list[str]:
    out = []
    for c in record["claims"]:
        sizes = ", ".join(f"{k} <= {v['asked']:,} (largest {v['worst']:,.0f})" for k, v in c["sizes"].items())
        title = record["parts"][c["part"]]["title"]
        said = "met" if c["met"] else "MISSED"
        out.append(
            f"{said}: {title}: {sizes}, test >= {100 * c['accuracy']:.1f} % (mean {100 * c['test']['mean']:.2f} %)."
        )
    return out


def _agreement(record: dict[str, Any]) -> list[str]:
    least = [p["same_as_onnxruntime"] for p in record["parts"].values()]
    if None in least or not least:
        return ["ONNX Runtime is not installed: its predictions were not compared."]
    n_test = next(iter(record["parts"].values()))["n_test"]
    return [
        f"Same predicted class in the engine (.sct) and in ONNX Runtime (.onnx): at least {min(least):,} of {n_test:,}."
    ]


def _speed(record: dict[str, Any]) -> list[str]:
    out = []
    for seed, found in record["seeds"].items():
        for part, timed in found["speed"].items():
            times = timed["latency_ms"]
            cells = [
                f"{runtime} {1000 * t['median']:.1f} us ({which})"
                for which, by_runtime in (("this net", times["model"]), ("dense", times.get("dense", {})))
                for runtime, t in by_runtime.items()
            ]
            title = record["parts"][part]["title"] if part != "packed" else "pruned, codebooks"
            out.append(f"Batch 1, one thread, {timed['isa']}, seed {seed}, {title}: {', '.join(cells)}.")
    return out
