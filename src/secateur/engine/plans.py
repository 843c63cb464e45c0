"""A plan on disk: the kernel and tile of every layer, for given input shapes (docs/design/plan-file.md)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

from secateur.engine import timings
from secateur.errors import FormatError, UsageError
from secateur.native import _native
from secateur.shell import saving
from secateur.version import __version__

VERSION = 1
LIMIT = 64_000_000  # bytes
Saved = list[tuple[list[list[int]], timings.Choices]]  # per set of input shapes: choices by node


@dataclass(frozen=True)
class Plan:
    """What a file holds: `parts` by the hash of the model that one native session runs."""

    model: str
    machine: str
    threads: int
    parts: dict[str, Saved]


def digest(model: bytes | mmap, level: int = 0) -> str:
    """sha256, as hex; each tighter level of a file has its own."""
    found = hashlib.sha256(model)
    if level:
        found.update(f"level {level}".encode())
    return found.hexdigest()


def machine() -> str:
    """CPU, caches, kernel level and engine version: where timings and plans hold."""
    return f"{_native.machine()}, secateur {__version__}"


def write(path: str | os.PathLike[str], plan: Plan) -> None:
    """Write the file, whole or not at all. Raises EnvironmentFailure where the folder does not take it."""
    body = {"format": "secateur-plan", "version": VERSION, **vars(plan)}
    saving.write_bytes(Path(path), saving.to_json(body))


def read(path: str | os.PathLike[str], model: bytes | mmap, threads: int | None, level: int = 0) -> Plan:
    """The plan of `model` for this machine.

    Args:
        threads: what the session was asked for; None takes the plan's.
    Raises:
        UsageError: no such file; or the plan is for another model, machine, version or number of threads.
        FormatError: not a plan, or a damaged one.
    """
    try:
        with open(path, "rb") as f:
            data = f.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(
            f"{os.fspath(path)}: cannot be read ({error.strerror}); pass the path of a saved plan"
        ) from None
    try:
        plan = _parse(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{os.fspath(path)}: not a plan of this version, or a damaged one ({error})") from None
    here = {"model": digest(model, level), "machine": machine(), "threads": threads or plan.threads}
    wrong = [f"{key} {getattr(plan, key)!r}, here {now!r}" for key, now in here.items() if getattr(plan, key) != now]
    if wrong:
        raise UsageError(f"{os.fspath(path)}: the plan is for {'; for '.join(wrong)}; make it again with save_plan()")
    return plan


def _parse(data: bytes) -> Plan:
    if len(data) > LIMIT:
        raise ValueError(f"more than {LIMIT} bytes")
    found = timings.parse(data)
    if found["format"] != "secateur-plan" or found["version"] != VERSION:
        raise ValueError(f"format {found['format']!r}, version {found['version']!r}; known: 'secateur-plan', {VERSION}")
    threads = found["threads"]
    if type(threads) is not int or not 1 <= threads <= 1024:
        raise ValueError("threads")
    return Plan(
        model=_str(found["model"]),
        machine=_str(found["machine"]),
        threads=threads,
        parts={_str(model): [_saved(entry) for entry in plans] for model, plans in found["parts"].items()},
    )


def _saved(entry: Any) -> tuple[list[list[int]], timings.Choices]:
    dims, layers = entry
    for shape in dims:
        if len(shape) > 8 or not all(type(d) is int and 0 <= d < 2**40 for d in shape):
            raise ValueError("a shape of an input")
    return [list(shape) for shape in dims], [(_str(node), timings.choice(choice)) for node, choice in layers]


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a number where a name belongs")
    return value
