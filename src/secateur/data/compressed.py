"""Files that people keep plain, under gzip or under xz: found by their plain name, told apart by their first bytes."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path

from secateur.errors import FormatError

_SUFFIXES = ("", ".gz", ".xz")
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)  # what reading a damaged stream raises


def find(folder: Path, name: str) -> Path | None:
    """`name`, `name.gz` or `name.xz` in `folder`, the first that is a file, else None."""
    return next((p for s in _SUFFIXES if (p := folder / (name + s)).is_file()), None)


def opened(path: Path) -> gzip.GzipFile | lzma.LZMAFile:
    """A stream of the unpacked bytes; reading it may raise one of `DAMAGED`. FormatError where it cannot be opened."""
    try:
        with path.open("rb") as plain:
            magic = plain.read(6)
        if magic[:2] == b"\x1f\x8b":
            return gzip.open(path, "rb")
        if magic == b"\xfd7zXZ\0":
            return lzma.open(path, "rb")
        return path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


def read(path: Path, limit: int) -> bytes:
    """All unpacked bytes, never more than `limit`: a small archive cannot fill the memory.

    Raises FormatError (damaged, too long).
    """
    with opened(path) as stream:
        try:
            raw = stream.read(limit + 1)
        except DAMAGED as error:
            raise FormatError(f"{path.name}: the compressed file is damaged or truncated ({error})") from error
    if len(raw) > limit:
        raise FormatError(f"{path.name}: more than {limit} bytes; this is not the file that was meant")
    return raw
