"""Published results, rerun by `secateur reproduce NAME`.

`<name>.yaml` beside this file is one result, a list of parts for `study`; `first_try` is a study of its own kind.
"""

from __future__ import annotations

from typing import Any

from secateur.errors import UsageError
from secateur.reproduce import first_try, study
from secateur.reproduce import table as tables
from secateur.reproduce.study import Study

Json = dict[str, Any]


def names() -> dict[str, str]:
    """Name -> one line, of everything that can be rerun."""
    return {first_try.NAME: first_try.ABOUT, **study.names()}


def run(name: str, *, cells: str | None = None, **options: Any) -> Json:
    """Rerun a result: `study.run` or `first_try.run` with its options.

    Raises:
        UsageError: unknown name; `cells` for a result that has none.
    """
    if name == first_try.NAME:
        return first_try.run(cells=cells or "*", **options)
    if cells is not None:
        raise UsageError(f"reproduce: {name} has parts and seeds, no cells; leave --cells out")
    return study.run(name, **options)


def table(record: Json, markdown: bool = False) -> str:
    """A record as text, or as Markdown."""
    make = first_try.table if record["name"] == first_try.NAME else tables.table
    return make(record, markdown)


__all__ = ["Study", "names", "run", "table"]
