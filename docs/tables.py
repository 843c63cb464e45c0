"""Writes the generated parts of README.md: the table of methods. `--check` fails when they are stale."""

from __future__ import annotations

import sys
from pathlib import Path

from secateur import catalog
from secateur.cli.methods import describe

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- methods: made by `make tables` -->", "<!-- /methods -->"


def table() -> str:
    """A Markdown table of every method of every room."""
    lines = ["| room | name | what | paper |", "|---|---|---|---|"]
    for room in catalog.ROOMS:
        for name in catalog.names(room):
            entry = describe(room, name)
            what = entry["summary"].replace("|", "\\|")
            lines.append(f"| {room.split('.')[-1]} | `{name}` | {what} | {entry['paper'] or '-'} |")
    return "\n".join(lines)


def main() -> int:
    """Write the README, or check it."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(START)
    _, tail = rest.split(END)
    fresh = f"{head}{START}\n{table()}\n{END}{tail}"
    if "--check" in sys.argv:
        if fresh != text:
            print("README.md: the table of methods is stale; run `make tables`", file=sys.stderr)
            return 1
        return 0
    README.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
