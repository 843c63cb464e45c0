"""Progress for people: what a run is doing, how fast it goes and how long that takes. Needs rich, never torch.

A bar on a terminal, one line in a notebook, plain lines where a command's stderr is a file, and lines of the logger
`secateur` (level INFO) where a Python program has neither. `shown` chooses.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from secateur.report.words import seconds as duration
from secateur.types import Progress as Event

Report = Callable[[Event], None]
Else = Literal["lines", "logging"]
PLAIN_SECONDS = 10.0  # a plain line at most this often per stage
NOTEBOOK_SECONDS = 0.2

# Stages that train: their units are optimizer steps. The others say how often something was measured or written.
_TRAINS = {
    "dense": "training the dense net",
    "approach": "pruning",
    "polish": "retraining what is left",
    "snap": "training the quantized values",
    "levels": "training all levels by turns",
    "settle": "training the quantized values again",
}
_MEASURES = {
    "prices": "pricing the layers",
    "fit": "fitting the budget",
    "values": "choosing the values",
    "write": "writing the files",
    "comparison": "comparing the runtimes",
    "timing": "timing the nets",
    "latency": "timing the layers",
    "clock": "timing the written net",
}
_BATCHES = {"ranges": "measuring activations", "check": "comparing the outputs"}
_RUNS = {
    "main": "",
    "narrow": "",
    "one_shot": "baseline (one-shot): ",
    "search": "search, try {}: ",
    "looser": "looser budget, try {}: ",
    "trim": "last trim: ",
    "tighter": "tighter level {}: ",
}


def plainly(stage: str) -> str:
    """A stage's name in plain words.

    >>> plainly("main.approach2"), plainly("one_shot.trim1.snap")
    ('pruning, part 2', 'baseline (one-shot): last trim: training the quantized values')
    """
    prefix, space, names = stage.rpartition(" ")
    *runs, last = names.split(".")
    kind, number = _split(last)
    said = (_TRAINS | _MEASURES | _BATCHES).get(kind, last)
    part = f", part {number}" if kind == "approach" and number else ""
    before = [_RUNS.get(k, f"{k}: ").format(int(n or 0) + 1) for k, n in map(_split, runs)]
    return prefix + space + "".join(before) + said + part


def is_training(stage: str) -> bool:
    """Whether the units of a stage are optimizer steps."""
    return _split(stage.rpartition(".")[2].rpartition(" ")[2])[0] in _TRAINS


def _split(name: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)(\d*)", name)
    return (found[1], found[2]) if found else (name, "")


def status(event: Event) -> str:
    """Steps, rate, time left, loss and metric of one event: `120/400 steps, 31.0 steps/s, 9.0 s left, loss 0.2113`."""
    if event.stage in _BATCHES:
        return f"{event.done:,}/{event.total:,} batches"
    if not is_training(event.stage):
        return f"{event.done} done" if event.done else ""
    rate = event.done / event.seconds if event.seconds > 0.1 else 0.0
    parts = [f"{event.done:,}/{event.total:,} steps"]
    if event.done >= event.total:
        parts.append(f"{duration(event.seconds)}")
    elif rate:
        parts += [f"{rate:.1f} steps/s", f"{duration((event.total - event.done) / rate)} left"]
    return ", ".join([*parts, *(f"{k} {v:.4g}" for k, v in event.metrics.items())])


def line(event: Event) -> str:
    """One event as one line."""
    return f"{plainly(event.stage)}: {status(event)}".rstrip(": ")


class Lines:
    """Lines for a log: the first and last event of a stage, and one every `every` seconds in between."""

    def __init__(self, write: Callable[[str], None], every: float = PLAIN_SECONDS, ends_only: bool = False) -> None:
        self._write, self._every, self._ends_only = write, every, ends_only
        self._stage, self._next = "", 0.0

    def say(self, text: str) -> None:
        """A line between the events."""
        self._write(text)

    def __call__(self, event: Event) -> None:
        now, first, last = time.monotonic(), event.stage != self._stage, event.done >= event.total
        if self._ends_only and not (last and is_training(event.stage)):
            return
        if not (first or last or now >= self._next):
            return
        self._stage, self._next = event.stage, now + self._every
        self._write(line(event))


class Bar:
    """A bar for the stage under way; stages that trained stay above it as lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._last: Event | None = None

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def __call__(self, event: Event) -> None:
        if self._last is None or event.stage != self._last.stage:
            self.close()
            total = event.total if is_training(event.stage) else None
            self._task = self._progress.add_task(escape(plainly(event.stage)), total=total, note="")
        if self._task is not None:
            self._progress.update(self._task, completed=event.done, note=escape(status(event)))
        self._last = event

    def close(self) -> None:
        """The stage is over: its bar goes, its line stays."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        if self._last is not None and is_training(self._last.stage):
            self.say(line(self._last))
        self._last = None


class Notebook:
    """The same as text in a notebook's cell, through IPython alone: rich's bars need ipywidgets there.

    Args:
        show: writes the text; called again, it replaces what it wrote.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._above = show, list[str]()
        self._last: Event | None = None
        self._next = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._above.append(text)
        self._show("\n".join(self._above))

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if self._last is not None and event.stage != self._last.stage:
            self.close()
        if self._last is None or now >= self._next or event.done >= event.total:
            self._next = now + NOTEBOOK_SECONDS
            self._show("\n".join([*self._above, line(event)]))
        self._last = event

    def close(self) -> None:
        """The stage is over."""
        if self._last is not None and is_training(self._last.stage):
            self._above.append(line(self._last))
        self._show("\n".join(self._above))
        self._last = None


@contextmanager
def shown(asked: Report | bool | None = None, note: str = "", otherwise: Else = "logging") -> Iterator[Report | None]:
    """An `on_progress` callable for long work, or None for silence.

    Args:
        asked: a callable is taken as it is; False is silence; None and True choose by where the words go.
        note: said once, before the first event.
        otherwise: without terminal and notebook: `lines` on stderr, or `logging` (INFO, one line per training).
    """
    if asked is False:
        yield None
    elif callable(asked):
        yield asked
    elif (show := _notebook()) is not None:
        cell = Notebook(show)
        yield from _told(cell, note)
        cell.close()
    elif sys.stderr.isatty():
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}")
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = Bar(bars)
            try:
                yield from _told(bar, note)
            finally:
                bar.close()
    elif otherwise == "lines":
        yield from _told(Lines(lambda text: print(text, file=sys.stderr, flush=True)), note)
    else:
        yield from _told(Lines(logging.getLogger("secateur").info, ends_only=True), note)


def _told(form: Any, note: str) -> Iterator[Report]:
    if note:
        form.say(note)
    yield form


def _notebook() -> Callable[[str], None] | None:
    """What writes text into the cell of a notebook that runs this process; None where there is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:  # IPython in a terminal
        return None
    from IPython.display import display  # type: ignore[import-not-found]

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)
