"""Writes the generated pages: methods.md, claims.md, sets.md and design/index.md. `--check` fails when one is stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from secateur import catalog
from secateur.cli.methods import describe
from secateur.reproduce import plan, study, summary
from secateur.reproduce.table import gain_range, gain_shown

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
HEAD = """# Methods

One file each in `src/secateur` (layouts and codecs: the packed file's). `secateur methods` prints the same with all
options. This page is made by `make tables`.
"""
CLAIMS = """# Claims

What papers say, and what we say, tried on small real data. What was expected stands in the study's file before the
first run; `secateur reproduce NAME` runs it again. This page is made by `make tables` from the studies and the records
in `benchmarks/results`.

A gain is how much better the one side is than the other in the study's measure, or how many times smaller. Verdicts go
by the 90 % interval of the gain over the seeds: *confirmed* when all of it reaches the claim, less its margin;
*smaller* when all of it is below that and above no gain; *refuted* when all of it is below that and no gain at all is
not excluded; *open* when the interval holds the bar or too little has been run.
"""
SETS = """# Which shape of zeros is worth training

Every set of supports on two trained nets, projected at once and nothing retrained: how much of the weights' energy it
keeps beside zeros anywhere, and what the engine gains by it. Energy is the sum of squares, of all convolutions but the
first; training wins back a part of what is lost, and by how much differs from set to set. Zeros differ where levels are
coarse. Of `rows` and `inputs` the channels are removed, and what that takes from other layers is in bytes and time, not
in the energy: the filters of the first layer go with `inputs`, columns of the last with `rows`. This page is made by
`make tables` from `benchmarks/results/sets-*.json`, which `benchmarks/speed/sets.py` writes.
"""
DECISIONS = """# Decisions

What others must live with, and why. This page is made by `make tables`.
"""


def methods() -> Iterator[str]:
    """A Markdown table for every room."""
    yield HEAD
    for room in catalog.ROOMS:
        yield f"## {room.split('.')[-1].capitalize()}\n\n| name | what | paper |\n|---|---|---|"
        for name in catalog.names(room):
            entry = describe(room, name)
            what = entry["summary"].replace("|", "\\|")
            yield f"| `{name}` | {what} | {entry['paper'] or '-'} |"
        yield ""


def claims() -> Iterator[str]:
    """A Markdown table of every claim of every shipped study."""
    yield CLAIMS
    yield "| claim | claimed | expected | found | verdict | the forecast | study |\n|---|---:|---:|---:|---|---|---|"
    notes = []
    for name in study.names():
        for record in _records(name):
            measure = record["measure"]
            for claim in record["claims"]:
                expect = gain_range(claim, claim["expect"], measure)
                claimed = gain_shown(claim, claim["claimed"], measure)
                cells = [claim["says"], claimed, expect, _found(claim, measure), f"*{claim['verdict']}*"]
                command = record["command"].removeprefix("secateur reproduce ")
                yield "| " + " | ".join([*cells, claim.get("expected", ""), f"`{command}`"]) + " |"
                if claim.get("why"):
                    notes.append(f"- {claim['says']}: open because {claim['why']}.")
    yield "\n".join(["", *notes, ""])


def _records(name: str) -> Iterator[dict[str, Any]]:
    """The record of each task of a study that makes claims: the one kept, or that of a study not begun."""
    for task in plan.tasks_of(study.path(name)) or [None]:
        planned = plan.read(study.path(name), task)
        if not planned.plan.claims:
            continue
        record = summary.build(planned, study.recorded(planned))
        kept = RESULTS / f"{'-'.join(filter(None, [name, task]))}.json"
        if kept.is_file():
            asked, record = record["plan"]["claims"], json.loads(kept.read_text(encoding="utf-8"))
            if record["plan"]["claims"] != asked:
                sys.exit(f"{kept.name}: the claims of study {name} were changed after the run; run `reproduce` again")
        yield record


def _found(claim: dict[str, Any], measure: dict[str, Any]) -> str:
    """The gain with its interval."""
    gain = claim["gain"]
    if gain is None:
        return "-"
    ends = f" ({gain_range(claim, gain, measure)})" if gain["low"] is not None else ""
    return gain_shown(claim, gain["mean"], measure) + ends


def sets() -> Iterator[str]:
    """Markdown tables of each net."""
    yield SETS
    for title, task in (("Fashion-MNIST", "fashion"), ("Spoken digits", "fsdd")):
        yield f"## {title}\n"
        yield from _shapes(json.loads((RESULTS / f"sets-{task}.json").read_text(encoding="utf-8")))


def _shapes(record: dict[str, Any]) -> Iterator[str]:
    """A Markdown table for each share of zeros."""
    dense = record["dense"]["latency_ms"]["median"]
    yield (
        f"{record['what']}; {record['cpu']}, {record['isa']}, {record['threads']} thread, batch {record['batch']}, "
        f"{record['n_inputs']} examples in rotation; dense {1e3 * dense:.1f} us a call.\n"
    )
    for asked in dict.fromkeys(row["asked"] for row in record["rows"]):
        yield f"### {asked:.0%} zeros\n"
        yield "| set | zeros | energy kept | of unstructured | us | x dense | x unstructured | bytes | kernels |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|---|"
        rows = [row for row in record["rows"] if row["asked"] == asked]
        free = next(row for row in rows if row["set"] == "topk")
        for row in sorted(rows, key=lambda r: -r.get("energy", -1)):
            if "why_not" in row:
                yield f"| {row['set']} | - | {row['why_not']} | | | | | | |"
                continue
            beside = free["latency_ms"]["median"] / row["latency_ms"]["median"]
            kernels = ", ".join(f"{n} {k.split('_')[1]}" for k, n in row["kernels"].items())
            yield (
                f"| {row['set']} | {row['zeros']:.1%} | {row['energy']:.3f} | {row['of_unstructured']:.2f} | "
                f"{1e3 * row['latency_ms']['median']:.1f} | {row['speedup']:.1f} | {beside:.2f} | {row['nbytes']:,} | "
                f"{kernels} |"
            )
        yield ""


def decisions() -> Iterator[str]:
    """The titles of docs/design, linked."""
    yield DECISIONS
    for page in sorted((DOCS / "design").glob("*.md")):
        if page.name != "index.md":
            title = page.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
            yield f"- [{title}]({page.name})"
    yield ""


def main() -> int:
    """Write the pages, or check them."""
    pages = {"methods.md": methods(), "claims.md": claims(), "sets.md": sets(), "design/index.md": decisions()}
    for path, lines in ((DOCS / name, lines) for name, lines in pages.items()):
        fresh = "\n".join(lines)
        if "--check" not in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != fresh:
            print(f"{path.relative_to(DOCS.parent)} is stale; run `make tables`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
