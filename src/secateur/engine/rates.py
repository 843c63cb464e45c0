"""How much longer kernels take on this machine than the cost models say: what `secateur calibrate` found, on disk.

The file is read as if a stranger had written it, and what is not well formed is left alone with a warning.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from secateur.engine import timings
from secateur.shell import saving

Rates = dict[str, float]  # by "<kernel>/<kind>", "<kernel>", and "" for all others (engine/plan/rates.h)
VERSION = 1
KEPT = 50  # machines: a shared home folder, or many versions of the engine
MOST = 64.0  # a factor, and its inverse


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
    return timings.machines(path(), "rates", VERSION, _rate, "run `secateur calibrate` again")


def _rate(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 1 / MOST <= value <= MOST:
        raise ValueError("a factor that is none")
    return float(value)
