"""Which kernel was fastest for a layer, timed on this kind of machine: one small file in the user's cache folder.

The file is read as if a stranger had written it: what is not well formed is left alone with a warning, and a kernel or
tile that this machine does not have is no candidate of the engine's and so never taken. Processes that write wait for
one another, and every write goes to a new name and is renamed: readers need not wait.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from secateur.errors import UsageError
from secateur.shell import saving

T = TypeVar("T")
Choice = tuple[str, tuple[int, int, int, int], float, str]  # kernel, tile, microseconds, mode
Choices = list[tuple[str, Choice]]  # by a layer's key, or by a node's name
MODES = ("off", "fast", "full")
VERSION = 1
LIMIT = 16_000_000  # bytes of a file
KEPT = 20_000  # layers of one machine; a large network has some hundred
_TEXT = 1000  # characters of a key or a name


def path() -> Path:
    """`timings.json` in `saving.cache_folder()`."""
    return saving.cache_folder() / "timings.json"


def asked() -> str:
    """The mode in SECATEUR_TUNE, else "off". Raises UsageError for a word that is none."""
    mode = os.environ.get("SECATEUR_TUNE") or "off"
    if mode not in MODES:
        raise UsageError(f"SECATEUR_TUNE={mode}: must be one of {', '.join(MODES)}")
    return mode


def read(machine: str) -> Choices:
    """What was timed on `machine` (`plans.machine()`); nothing where the file is missing or broken."""
    return list(_read().get(machine, {}).items())


def add(machine: str, timed: Choices) -> None:
    """Merge into the file; a warning where it cannot be written."""
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("a") as lock:
            _wait_for(lock)
            _write(file, _merged(machine, timed))
    except OSError as error:
        warnings.warn(
            f"{file}: timings are not kept ({error.strerror}); set SECATEUR_CACHE to another folder", stacklevel=4
        )


def _wait_for(lock: IO[str]) -> None:
    """Until the file is ours alone; the system lets it go with the handle."""
    try:
        import fcntl
    except ImportError:  # Windows: of two that write at once the later one's file stands
        return
    fcntl.flock(lock, fcntl.LOCK_EX)


def _merged(machine: str, timed: Choices) -> bytes:
    machines = _read()
    known = machines.setdefault(machine, {})
    for key, choice in timed:
        known.pop(key, None)  # to the end: the oldest go first
        known[key] = choice
    for key in list(known)[:-KEPT]:
        del known[key]
    data = _text_of(machines)
    return data if len(data) <= LIMIT else _text_of({machine: known})  # other machines' (a shared home folder) go


def _text_of(machines: dict[str, dict[str, Choice]]) -> bytes:
    return json.dumps(
        {"format": "secateur-timings", "version": VERSION, "machines": machines}, allow_nan=False
    ).encode()


def _write(file: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".timings-", suffix=".tmp", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
        os.replace(name, file)
    finally:
        with suppress(OSError):
            os.unlink(name)  # gone already where all went well


def parse(data: bytes) -> Any:
    """JSON without NaN and infinities. Raises ValueError, also for nesting without end."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"the number {word}")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def choice(value: Any) -> Choice:
    """[kernel, [rows, chunk, block, form], microseconds, mode], checked. Raises ValueError."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("a choice is no list of four")
    kernel, tile, us, mode = value
    if not isinstance(kernel, str) or len(kernel) > _TEXT or mode not in MODES:
        raise ValueError("a choice without kernel and mode")
    if not isinstance(tile, list) or len(tile) != 4 or not all(type(t) is int and 0 <= t < 2**31 for t in tile):
        raise ValueError("a tile that is not four sizes")
    if type(us) not in (int, float) or not 0 <= us < 1e12 or not math.isfinite(us):
        raise ValueError("a time that is none")
    return kernel, (tile[0], tile[1], tile[2], tile[3]), float(us), mode


def machines(file: Path, kind: str, version: int, value: Callable[[Any], T], then: str) -> dict[str, dict[str, T]]:
    """Per machine what the file of format `secateur-<kind>` holds by name, each checked by `value`, which raises
    ValueError. Nothing of a file that is missing, of another version or broken; of that a warning, with `then`."""
    try:
        with file.open("rb") as f:
            data = f.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        found = parse(data)
        if not isinstance(found, dict) or found.get("format") != f"secateur-{kind}":
            raise ValueError(f"not {kind}")
        if found.get("version") != version:
            return {}  # another version's: replaced at the next write
        return {_text(m): {_text(k): value(v) for k, v in known.items()} for m, known in found["machines"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        warnings.warn(f"{file}: not readable, ignored ({error}); {then}", stacklevel=5)
        return {}


def _read() -> dict[str, dict[str, Choice]]:
    return machines(path(), "timings", VERSION, choice, "layers are timed again")


def _text(value: str) -> str:
    if len(value) > _TEXT:
        raise ValueError("a key that is too long")
    return value
