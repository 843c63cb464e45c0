"""Makes docs/tutorials/first-steps.ipynb of the vision tutorial and runs it, so that it shows what really comes out.

Needs nbclient and ipykernel (`make docs` has them). The tests hold its cells to the tutorial's text.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TUTORIALS = Path(__file__).parent / "tutorials"
PAGE, NOTEBOOK = TUTORIALS / "vision.md", TUTORIALS / "first-steps.ipynb"
_FENCE = re.compile(r"^```(python|sh)\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)


def cells(text: str) -> Iterator[tuple[str, str]]:
    """(code or markdown, source) in the order of the page; shell commands get the notebook's `!`."""
    at = 0
    for match in _FENCE.finditer(text):
        if words := text[at : match.start()].strip():
            yield "markdown", words
        code = match[2].strip()
        yield "code", code if match[1] == "python" else "\n".join(f"!{line}" for line in code.splitlines())
        at = match.end()
    if words := text[at:].strip():
        yield "markdown", words


def main() -> None:
    """Write the executed notebook."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook()
    for i, (kind, source) in enumerate(cells(PAGE.read_text(encoding="utf-8"))):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        book.cells.append(make(source, id=f"cell-{i}"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(COLUMNS="100", TERM="dumb")  # plain tables, no colours
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for `!secateur`
        NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in book.cells:
        cell.get("metadata", {}).pop("execution", None)  # times of day
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(book, NOTEBOOK)


if __name__ == "__main__":
    main()
