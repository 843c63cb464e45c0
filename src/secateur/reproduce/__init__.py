"""Published results, rerun by `secateur reproduce NAME`.

`<name>.yaml` beside this file is one study, a list of parts over a grid; `first_try` is a study of its own kind.
"""

from __future__ import annotations

from typing import Any

from secateur.errors import UsageError
from secateur.reproduce import first_try, study
from secateur.reproduce import table as tables

Json = dict[str, Any]


def names() -> dict[str, str]:
    """Name -> one line, of everything that can be rerun."""
    return {first_try.NAME: first_try.ABOUT, **study.names()}


def run(name: str, *, cells: str | None = None, task: str | None = None, **options: Any) -> Json:
    """Rerun a result: `study.run` or `first_try.run` with its options.

    Raises:
        UsageError: unknown name, task or cell.
    """
    if name != first_try.NAME:
        return study.run(name, cells=cells, task=task, **options)
    if task is not None:
        raise UsageError(f"reproduce: {name} has cells and no tasks; leave --task out")
    return first_try.run(cells=cells or "*", **options)


def table(record: Json, markdown: bool = False) -> str:
    """A record as text, or as Markdown."""
    make = first_try.table if record["name"] == first_try.NAME else tables.table
    return make(record, markdown)


__all__ = ["names", "run", "table"]
