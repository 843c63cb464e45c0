"""Printing: JSON and tables for people on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(value: Any) -> None:
    """One JSON object on stdout; NaN and infinity are refused, so that any reader can read it."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], footer: str = "") -> None:
    """A table for people on stdout; numbers right-aligned, full width when piped."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=title, title_justify="left", caption=footer or None, caption_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) or _looks_numeric(str(r[i])) for r in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(v) for v in row))
    console.print(table)


def _looks_numeric(text: str) -> bool:
    return text in ("", "-") or text[0].isdigit()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def size(nbytes: float) -> str:
    """Bytes for people: 812 B, 2.95 KB, 1.72 MB (1 KB = 1000 bytes)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes:.0f} B"
