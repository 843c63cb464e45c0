"""Writes the generated pages: docs/methods.md and docs/design/index.md. `--check` fails when one is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from secateur import catalog
from secateur.cli.methods import describe

DOCS = Path(__file__).parent
HEAD = """# Methods

One file each in `src/secateur` (layouts and codecs: the packed file's). `secateur methods` prints the same with all
options. This page is made by `make tables`.
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
    for path, lines in ((DOCS / "methods.md", methods()), (DOCS / "design" / "index.md", decisions())):
        fresh = "\n".join(lines)
        if "--check" not in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != fresh:
            print(f"{path.relative_to(DOCS.parent)} is stale; run `make tables`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
