"""Which tests run under the coverage tracer, how long reports time, and what a test leaves as it was."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

import brief
import resting
from forks import Forks, started

PLAIN = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
HOOK = pytest.StashKey[Any]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of graphs, exports or kernels with many parameter sets is traced with its first alone.

    Python 3.11's tracing makes torch's own Python twice as slow (tests/graph/test_rewrite.py: 18 s, 40 s traced), and a
    later set seldom reaches a line that no other test does. What is reported is a lower bound of the lines reached.
    """
    if sys.gettrace() is not None and "torch" in sys.modules:
        resting.rest()
    seen: set[tuple[str, str]] = set()
    for item in items:
        if item.path.parent.name not in ("graph", "export", "parity"):
            continue
        key = str(item.path), item.nodeid.partition("[")[0]
        if key in seen:
            item.add_marker("no_cover")
        seen.add(key)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Signals start as in a process of its own, also where the runner is a job in the background that ignores some."""
    for number, handler in PLAIN.items():
        signal.signal(number, handler)
    item.stash[HOOK] = sys.unraisablehook
    brief.restore() if item.path.parent.name == "engine" else brief.shorten()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """A handler that a test leaves behind fails that test: later ones, and every child they start, would inherit it.

    `cli.main` leaves SIGTERM ignored, for its process ends there; a run that a later test starts and stops by SIGTERM
    then runs to its end. Tests of commands call `cli._main`.
    """
    left = []
    try:
        yield
        left = [number.name for number, handler in PLAIN.items() if signal.getsignal(number) != handler]
        if sys.unraisablehook is not item.stash[HOOK]:
            left.append("sys.unraisablehook")
    finally:
        for number, handler in PLAIN.items():
            signal.signal(number, handler)
        sys.unraisablehook = item.stash[HOOK]
    if left:
        pytest.fail(f"the test leaves {', '.join(left)} changed for those after it", pytrace=False)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Runs that may be killed: cheap processes."""
    with started() as made:
        yield made
