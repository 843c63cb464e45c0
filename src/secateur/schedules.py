"""Schedules: callables from progress in [0, 1] to a value. Pure functions; `get(name)` finds one by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from secateur.errors import UsageError
from secateur.limits import quoted

Schedule = Callable[[float], float]


def cubic(progress: float) -> float:
    """1 - (1 - t)^3: fast first, gentle at the end (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1)."""
    return 1.0 - (1.0 - clamp(progress)) ** 3


def linear(progress: float) -> float:
    """t."""
    return clamp(progress)


def cosine(progress: float, floor: float = 0.0) -> float:
    """From 1 down to `floor` along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5)."""
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * clamp(progress)))


def constant(progress: float) -> float:
    """1, always."""
    return 1.0


def steps(progress: float, n: int = 3, factor: float = 0.1) -> float:
    """`factor`^i in the i-th of `n` equal parts."""
    return factor ** min(int(clamp(progress) * n), n - 1)


def clamp(t: float) -> float:
    """t cut to [0, 1]."""
    return min(max(t, 0.0), 1.0)


_NAMED: dict[str, Schedule] = {
    "cubic": cubic,
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "steps": steps,
    "linear_down": lambda t: 1.0 - clamp(t),
    "cosine_floor": partial(cosine, floor=0.05),
}


def get(name: str) -> Schedule:
    """The schedule of that name; UsageError lists the known ones."""
    if name not in _NAMED:
        raise UsageError(f"schedule {quoted(name)} is unknown; known: {', '.join(sorted(_NAMED))}")
    return _NAMED[name]
