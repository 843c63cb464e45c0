"""Files that are whole or absent: temporary name, fsync, rename; one run per folder."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from secateur.errors import EnvironmentFailure, UsageError
from secateur.shell import interrupts

Writer = Callable[[Path, bytes], None]
TEMPORARY = ".secateur-"  # names of files that are being written begin so
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk, then rename: never a half-written file.

    A link is followed: the file that it names is written, in its place and with its permissions. What is no regular
    file (a pipe, a terminal, /dev/null) is written into, never replaced.

    Raises:
        UsageError: a folder, a disk, a socket, a pipe without a reader.
        EnvironmentFailure: disk full, file or folder not writable; an older file is untouched.
    """
    check_writable(path)
    try:
        if _is_replaced(path):
            _replace(Path(os.path.realpath(path)), data)
        else:
            _write_into(path, data)
    except OSError as e:
        raise failure(path, len(data), e) from None


def check_writable(path: Path) -> None:
    """What `write_bytes` would refuse, as far as that can be known before the work. Raises as `write_bytes`."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as e:
        raise failure(path, 0, e) from None
    for is_kind, kind in ((stat.S_ISDIR, "a folder"), (stat.S_ISBLK, "a disk"), (stat.S_ISSOCK, "a socket")):
        if is_kind(status.st_mode):
            raise UsageError(f"{path}: is {kind}; give the name of a file to write")
    if not os.access(path, os.W_OK):
        raise failure(path, 0, OSError(errno.EACCES, "it is write-protected"))


def _is_replaced(path: Path) -> bool:
    """A regular file, or none yet; not one that another program holds open for us (/dev/stdout, /dev/fd/3)."""
    if os.path.realpath(path.parent).startswith(("/dev", "/proc")):
        return False
    return path.is_file() or not path.exists()


def _replace(path: Path, data: bytes) -> None:
    with interrupts.held():
        _replace_at_once(path, data)


def _replace_at_once(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Made anew, so that no link of that name leads elsewhere.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as f:
            if path.exists():
                os.fchmod(f.fileno(), stat.S_IMODE(path.stat().st_mode))
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already where all went well


def _write_into(path: Path, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
    except OSError as e:
        if e.errno != errno.ENXIO:
            raise
        raise UsageError(f"{path}: is a pipe that nobody reads; start the reader first, or name a file") from None
    os.set_blocking(handle, True)  # only opening must not wait: it would for ever where no reader comes
    with os.fdopen(handle, "wb", buffering=0) as f:
        left = memoryview(data)
        while left:
            left = left[f.write(left) :]


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

    Folders that were made here and are empty at the end (the run failed before its first file) are removed, and so is
    what a killed run was writing.
    """
    import fcntl

    made = [f for f in (folder, *folder.parents) if not f.exists()]
    path, ours = folder / ".lock", False
    try:
        make_folder(folder)
        with _opened(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"{folder}: another run is using this folder; wait for it or choose another one"
                ) from None
            ours = True
            for place in (folder, folder / "checkpoint"):
                for stale in place.glob(f"{TEMPORARY}*.tmp"):
                    stale.unlink(missing_ok=True)
            yield
    finally:
        with interrupts.held():
            if ours:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for f in made:
                    f.rmdir()


def _opened(path: Path) -> IO[str]:
    try:
        return open(path, "a+")
    except OSError as e:
        raise failure(path, 0, e) from None


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems refuse to sync a folder; the file itself is safe
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
