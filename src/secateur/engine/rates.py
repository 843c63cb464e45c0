"""How much longer kernels take on this machine than the cost models say: what `secateur calibrate` found, on disk.

The file is read as if a stranger had written it, and what is not well formed is left alone with a warning.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from secateur.engine import timings
from secateur.shell import saving

Rates = dict[str, float]  # by "<kernel>/<kind>", "<kernel>", and "" for all others (engine/plan/rates.h)
VERSION = 1
LIMIT = 4_000_000  # bytes
KEPT = 50  # machines: a shared home folder, or many versions of the engine
MOST = 64.0  # a factor, and its inverse
_TEXT = 1000  # characters of a name


def path() -> Path:
    """`rates.json` in `saving.cache_folder()`, beside `timings.json`."""
    return saving.cache_folder() / "rates.json"


def read(machine: str) -> Rates | None:
    """What was found on `machine` (`plans.machine()`); None where nobody calibrated it or the file is broken."""
    return _read().get(machine)


def keep(machine: str, found: Rates) -> None:
    """Put `found` into the file. Raises EnvironmentFailure where it cannot be written."""
    machines = _read()
    machines.pop(machine, None)
    kept = list(machines.items())[-KEPT + 1 :]
    _write({**dict(kept), machine: found})


def forget(machine: str) -> bool:
    """Take out what was found on `machine`; whether there was anything."""
    machines = _read()
    if machines.pop(machine, None) is None:
        return False
    _write(machines)
    return True


def _write(machines: dict[str, Rates]) -> None:
    saving.make_folder(path().parent)
    saving.write_bytes(path(), saving.to_json({"format": "secateur-rates", "version": VERSION, "machines": machines}))


def _read() -> dict[str, Rates]:
    file = path()
    try:
        with file.open("rb") as f:
            data = f.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        found = timings.parse(data)
        if not isinstance(found, dict) or found.get("format") != "secateur-rates":
            raise ValueError("no rates")
        if found.get("version") != VERSION:
            return {}  # another version's: replaced at the next write
        return {_text(m): {_text(k): _rate(v) for k, v in rates.items()} for m, rates in found["machines"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        warnings.warn(f"{file}: not readable, ignored ({error}); run `secateur calibrate` again", stacklevel=4)
        return {}


def _text(value: str) -> str:
    if len(value) > _TEXT:
        raise ValueError("a name that is too long")
    return value


def _rate(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 1 / MOST <= value <= MOST:
        raise ValueError("a factor that is none")
    return float(value)
