"""Which tests run under the coverage tracer."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of graphs or exports with many parameter sets is traced with its first alone.

    Python 3.11's tracing makes torch's own Python twice as slow (tests/graph/test_rewrite.py: 18 s, 40 s traced), and a
    later set seldom reaches a line that no other test does. What is reported is a lower bound of the lines reached.
    """
    seen: set[tuple[str, str]] = set()
    for item in items:
        if item.path.parent.name not in ("graph", "export"):
            continue
        key = str(item.path), item.nodeid.partition("[")[0]
        if key in seen:
            item.add_marker("no_cover")
        seen.add(key)
