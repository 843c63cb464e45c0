"""What a compression costs beside plain training: processor time of a step, time before the first, memory."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from secateur.types import Progress

Json = dict[str, Any]
PLAIN = "plain"  # name of the stage that plain training is
_KIB = 1024
_SELF = Path("/proc/self")


class Watch:
    """Reads the progress of one compression, or of plain training, and passes it on.

    Time is that of the process on its processors, so that neighbours do not count: a step's is the mean over all
    trainings, without the steps behind which an epoch is judged. Memory is the most that was resident above what was
    when the weights were first priced, until files are written; None where the system does not tell (not Linux).

    Args:
        per_epoch: optimizer steps of an epoch.
        tell: gets every event.
    """

    def __init__(self, per_epoch: int, tell: Callable[[Progress], None] | None = None) -> None:
        self._per_epoch, self._tell = per_epoch, tell
        self._began: float | None = None  # the first price
        self._first: float | None = None  # the first step
        self._last = ("", 0, 0.0)
        self._seconds, self._steps = 0.0, 0
        self._base: int | None = None
        self._most: int | None = None

    def begin(self) -> None:
        """From now on memory counts, and time up to the first step."""
        self._began, self._base = time.process_time(), _reset()

    def end(self) -> None:
        """Until now memory counts."""
        if self._most is None and self._base is not None:
            self._most = max(_status("VmHWM") - self._base, 0)

    def __call__(self, event: Progress) -> None:
        now, (_, _, kind) = time.process_time(), event.stage.rpartition(".")
        if kind == "prices" and self._began is None:
            self.begin()
        elif kind == "write":
            self.end()
        elif kind.startswith("approach") or kind in ("polish", "snap", PLAIN):
            self._step(event, now)
        if self._tell is not None:
            self._tell(event)

    def _step(self, event: Progress, now: float) -> None:
        stage, done, before = self._last
        if self._first is None:
            self._first = now
        judged = event.done % self._per_epoch == 0 or event.done == event.total
        if stage == event.stage and event.done == done + 1 and not judged:
            self._seconds, self._steps = self._seconds + now - before, self._steps + 1
        self._last = event.stage, event.done, now

    def facts(self) -> Json:
        """`step_ms`, `before_seconds`, `memory` in bytes; None for what was not seen."""
        before = None if self._began is None or self._first is None else self._first - self._began
        return {
            "step_ms": 1000 * self._seconds / self._steps if self._steps else None,
            "before_seconds": before,
            "memory": self._most,
        }


def _reset() -> int | None:
    """Give freed memory back, let the highest mark of resident memory begin anew; resident bytes now."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc: what was freed may count again
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_SELF / "clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, StopIteration):
        return None


def _status(key: str) -> int:
    lines = (_SELF / "status").read_text().splitlines()
    return _KIB * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
