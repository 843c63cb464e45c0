"""Reading and writing whole files: missing ones said clearly, written ones complete or absent, none destroyed."""

from __future__ import annotations

import os
from pathlib import Path

from secateur.errors import UsageError
from secateur.shell import saving


def read(path: Path, what: str) -> bytes:
    """The bytes of an existing file; UsageError names what was wanted."""
    if not (path.is_file() or path.is_fifo()):
        state = "is a folder" if path.is_dir() else "is a device" if path.exists() else "no such file"
        raise UsageError(f"{path}: {state}; give the path of {what}")
    return path.read_bytes()


def check_output(path: Path, *inputs: Path | None) -> None:
    """Before the work: `path` can be written, and is none of the files that the command reads.

    Raises:
        UsageError: it is one of them, be it by another name or a link, or its folder does not exist.
        EnvironmentFailure: it is write-protected.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; make it or choose another")
    check_apart(path, *inputs)
    saving.check_writable(path)


def check_apart(path: Path, *inputs: Path | None) -> None:
    """UsageError when `path` is one of the `inputs`."""
    for given in inputs:
        if given is not None and given.exists() and path.exists() and os.path.samefile(given, path):
            raise UsageError(f"{path}: is read by this command, as {given}; give another name to what is written")


def is_apart(path: Path) -> bool:
    """Whether words on stdout do not fall into what was written (`-o /dev/stdout`, a pipe)."""
    return path.is_file() and not os.path.realpath(path.parent).startswith(("/dev", "/proc"))
