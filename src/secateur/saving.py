"""Files that are whole or absent: temporary name, fsync, rename; one run per folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from secateur.errors import EnvironmentFailure, UsageError

Writer = Callable[[Path, bytes], None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk, then rename: never a half-written file.

    Raises:
        EnvironmentFailure: disk full, folder not writable; the temporary file is gone and an older file untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as e:
        raise failure(path, len(data), e) from None
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already where all went well


def failure(path: Path, nbytes: int, error: OSError) -> EnvironmentFailure:
    """What an OSError while writing means to the user."""
    if error.errno in _FULL:
        return EnvironmentFailure(
            f"{path}: the disk is full ({nbytes} bytes were to be written); free some space and run again "
            "(a run goes on with --resume)"
        )
    return EnvironmentFailure(f"{path}: cannot be written ({error.strerror or error}); choose a writable folder")


def to_json(value: Any) -> bytes:
    """JSON text, keys in the order given, a newline at the end; NaN is refused."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def cache_folder() -> Path:
    """SECATEUR_CACHE, else XDG_CACHE_HOME/secateur, else ~/.cache/secateur; not created here."""
    given = os.environ.get("SECATEUR_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "secateur"


def make_folder(path: Path) -> None:
    """Create the folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{path}: is a file; give a folder for the run's files") from None
    except OSError as e:
        raise failure(path, 0, e) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder/.lock`; a second run into the same folder is refused. The system frees it when a process dies.

    A folder that was made here and is empty at the end (the run failed before its first file) is removed.
    """
    import fcntl

    made = not folder.exists()
    make_folder(folder)
    path = folder / ".lock"
    try:
        handle = open(path, "a+")  # noqa: SIM115 - held as long as the run
    except OSError as e:
        raise failure(path, 0, e) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{folder}: another run is using this folder; wait for it or choose another one") from None
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            if made:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems refuse to sync a folder; the file itself is safe
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
