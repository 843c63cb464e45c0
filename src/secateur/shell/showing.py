"""Records that show themselves: a dict for programs, a table for people, on a terminal and in a notebook."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH = 160  # where no terminal says how wide a line may be


class Shown(dict[str, Any]):
    """A record whose `print` is `show` of it, and so is its form in a notebook. JSON writes it as any dict."""

    def __init__(self, record: Mapping[str, Any], show: Callable[[Mapping[str, Any], Console], None]) -> None:
        super().__init__(record)
        self._show = show

    def show(self, console: Console) -> None:
        """Print it there."""
        self._show(self, console)

    def __str__(self) -> str:
        return text(self.show)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def text(show: Callable[[Console], None], width: int | None = None) -> str:
    """What `show` prints on a console, without colours; as wide as the terminal, or 160 characters."""
    from rich.console import Console

    out = io.StringIO()
    columns = width or shutil.get_terminal_size((_WIDTH, 24)).columns
    show(Console(file=out, width=columns, color_system=None, highlight=False, force_jupyter=False))
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], footer: str = "") -> Table:
    """A table whose columns of numbers are right-aligned."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), title_justify="left", caption=footer or None, caption_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) or _looks_numeric(str(r[i])) for r in rows)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(v)) for v in row))  # Text: names are data, never markup
    return made


def _looks_numeric(cell: str) -> bool:
    return cell in ("", "-") or cell[0].isdigit()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
