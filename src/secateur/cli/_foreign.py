"""The file in front of what goes wrong with it; files of other kinds are recognised where models are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import FormatError, UnsupportedError


def check(path: Path) -> None:
    """Refuse a file that is recognised as something that is no model of ours, with UsageError."""
    from secateur.engine import foreign

    if path.is_file():
        with path.open("rb") as f:
            foreign.refuse(str(path), f.read(foreign.HEAD))


@contextmanager
def model(path: Path) -> Iterator[None]:
    """`check`, and what goes wrong with the model inside the block is said with its path."""
    check(path)
    try:
        yield
    except (FormatError, UnsupportedError) as e:
        if str(path) not in str(e):
            e.args = (f"{path}: {e}", *e.args[1:])
        raise
