"""Reading and writing whole files: missing ones said clearly, written ones complete or absent."""

from __future__ import annotations

from pathlib import Path

from secateur import saving
from secateur.errors import UsageError


def read(path: Path, what: str) -> bytes:
    """The bytes of an existing file; UsageError names what was wanted."""
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {state}; give the path of {what}")
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    """`saving.write_bytes` into a folder that exists."""
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; make it or choose another")
    saving.write_bytes(path, data)
