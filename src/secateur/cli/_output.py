"""Printing: JSON on stdout, tables for people, progress on stderr (a bar on a terminal, plain lines otherwise)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from secateur.types import Progress as Event

PLAIN_SECONDS = 10.0  # a plain progress line at most this often per stage


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


class _Plain:
    """Plain progress lines: the first and last event of a stage, and one every PLAIN_SECONDS in between."""

    def __init__(self) -> None:
        self._stage, self._next = "", 0.0

    def __call__(self, event: Event) -> None:
        now, first, last = time.monotonic(), event.stage != self._stage, event.done >= event.total
        if not (first or last or now >= self._next):
            return
        self._stage, self._next = event.stage, now + PLAIN_SECONDS
        rate = event.done / event.seconds if event.seconds > 0.1 else 0.0
        left = f", {rate:.1f}/s" if rate else ""
        left += f", {(event.total - event.done) / rate:.0f} s left" if rate and not last else ""
        extra = "".join(f", {k} {v:.4g}" for k, v in event.metrics.items())
        print(f"{event.stage}: {event.done}/{event.total}{left}{extra}", file=sys.stderr, flush=True)


class _Bar:
    """One rich bar per stage with rate and time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tasks = progress, dict[str, TaskID]()

    def __call__(self, event: Event) -> None:
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._progress.add_task(event.stage, total=event.total, note="")
        rate = event.done / event.seconds if event.seconds > 0.1 else 0.0
        note = (f"{rate:.1f}/s  " if rate else "") + "  ".join(f"{k} {v:.4g}" for k, v in event.metrics.items())
        self._progress.update(self._tasks[event.stage], completed=event.done, total=event.total, note=note)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Any]:
    """An `on_progress` callable for long work."""
    if quiet:
        yield lambda event: None
    elif not sys.stderr.isatty():
        yield _Plain()
    else:
        columns = [
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=Console(stderr=True)) as bars:
            yield _Bar(bars)
