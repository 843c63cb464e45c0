"""`secateur methods`: the generated catalogue."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import typer

from secateur import catalog
from secateur.cli._output import print_json, print_table


def command(json_: bool = typer.Option(False, "--json", help="One JSON object on stdout.")) -> None:
    """List constraints, saliencies, solvers, objectives, meters and formats with their options and papers.

    Example: secateur methods --json
    """
    found = {room: [describe(room, name) for name in catalog.names(room)] for room in catalog.ROOMS}
    if json_:
        print_json(found)
        return
    for room, entries in found.items():
        rows = [[e["name"], e["summary"], _options(e), e["paper"]] for e in entries]
        print_table(room, ["name", "what", "options", "paper"], rows)


def describe(room: str, name: str) -> dict[str, Any]:
    """Name, one-line summary, options with defaults, paper, and for constraints whether the projection is exact."""
    cls = catalog.load(room, name)
    options = {}
    if dataclasses.is_dataclass(cls):
        for f in dataclasses.fields(cls):
            options[f.name] = None if f.default is dataclasses.MISSING else f.default
    entry = {
        "name": name,
        "summary": (inspect.getdoc(cls) or "").split("\n")[0],
        "options": {
            k: v if isinstance(v, int | float | str | bool | type(None)) else str(v) for k, v in options.items()
        },
        "paper": getattr(cls, "reference", ""),
    }
    if room == "constraints":
        entry["exact"] = bool(getattr(cls, "exact", False))
        entry["view"] = getattr(cls, "view", "")
    return entry


def _options(entry: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in entry["options"].items()) or "-"
