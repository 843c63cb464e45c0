"""Ctrl-C and SIGTERM: an exception in a command, a question in the training loop, nothing while a file is written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_raised: list[int] = []  # signals that became an exception; others' code may have caught it or put another in its place


def catch() -> None:
    """From now on both signals raise KeyboardInterrupt: for a process that is ours, to the end of it."""
    _raised.clear()
    _install(_raise)
    sys.unraisablehook = _again(sys.unraisablehook)


def came() -> bool:
    """Whether a signal was turned into an exception since `catch`, whatever became of that."""
    return bool(_raised)


def ignore() -> None:
    """After `catch`: the work is over, what comes now does not change its answer."""
    for number in SIGNALS:
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def watched() -> Iterator[Callable[[], bool]]:
    """Yields `asked() -> bool`, so that a checkpoint can be written first. A second signal stops at once.

    A signal that nobody asked about goes to whom it would have gone to, at the end. Outside the main thread signals are
    left alone.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen:
            _raise(number, frame)
        seen.append(number)

    with _handled_by(note):
        yield lambda: bool(seen)
    if seen:
        signal.raise_signal(seen[0])


@contextmanager
def held() -> Iterator[None]:
    """Signals wait until the end of the block: for the few steps that must not be cut in two."""
    waiting: list[int] = []
    try:
        with _handled_by(lambda number, frame: waiting.append(number)):
            yield
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


@contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    before = _install(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _install(handler: Any) -> dict[int, Any]:
    """The handlers before. What the parent process had ignored (a job in the background) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    now = {number: signal.getsignal(number) for number in SIGNALS}
    before = {int(number): h for number, h in now.items() if h is not None and h is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    return before


def _raise(number: int, frame: FrameType | None) -> None:
    _raised.append(number)
    raise KeyboardInterrupt


def _again(show: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An interrupt that fell into a finalizer or a weak reference's callback is dropped by Python: it is sent again."""

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            show(unraisable)
            return
        main = threading.main_thread().ident
        if main is not None:
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()

    return hook
