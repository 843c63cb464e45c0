"""How threads of one operation wait for each other: asleep, not spinning.

torch's pool is OpenMP's. Its threads spin at every barrier, so that on a busy machine one that waits takes the CPU from
the one it waits for: the digits CNN trained on two threads, one of two cores busy with something else, makes 2 steps a
second spinning and 36 asleep. The policy is read when the library is loaded: it must be set before torch is imported.
"""

from __future__ import annotations

import os
import sys

_POLICY = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def passive() -> None:
    """Ask for passive waiting, unless torch is loaded already; what the environment says stays."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update(_POLICY)


def told() -> str:
    """For the record: "passive" or "active"; for passive import secateur before torch."""
    return "passive" if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" else "active"
