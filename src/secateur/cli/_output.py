"""Printing: JSON and tables for people on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from secateur.shell.showing import Shown, table


def print_json(value: Any) -> None:
    """One JSON object on stdout; NaN and infinity are refused, so that any reader can read it."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], footer: str = "") -> None:
    """A table for people on stdout; numbers right-aligned, full width when piped."""
    _console().print(table(title, columns, rows, footer))


def print_shown(found: Shown) -> None:
    """A record as it shows itself, on stdout."""
    found.show(_console())


def _console() -> Console:
    """Standard output: as wide as the terminal, 160 characters when piped."""
    return Console(width=None if sys.stdout.isatty() else 160)


def size(nbytes: float) -> str:
    """Bytes for people: 812 B, 2.95 KB, 1.72 MB (1 KB = 1000 bytes)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes:.0f} B"
