"""Budget values with their units."""

from __future__ import annotations

import math
import re
from typing import Any

from secateur.limits import quoted
from secateur.recipe.building import near

LIMITS = ("nbytes", "nnz", "macs", "accuracy_drop")
_BYTES = {"B": 1, "KB": 1000, "MB": 10**6, "GB": 10**9, "KIB": 1024, "MIB": 2**20, "GIB": 2**30}
_COUNTS = {"": 1, "K": 1000, "M": 10**6, "G": 10**9}


def parse_limit(kind: str, value: Any) -> float:
    """A budget value in base units: `6KB` -> 6000, `0.1pt` -> 0.001, `1.5K` -> 1500. A number of bytes needs no unit.

    A fraction of a byte is dropped, which changes nothing: sizes of files are whole.

    >>> parse_limit("nbytes", "6KiB"), parse_limit("accuracy_drop", "0.1pt"), parse_limit("nnz", "1.75K")
    (6144.0, 0.001, 1750.0)
    >>> parse_limit("nbytes", 637_056 / 15)
    42470.0
    """
    if kind not in LIMITS:
        raise ValueError(f"budget key {quoted(kind)} is unknown{near(kind, LIMITS)}")
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*", str(value))
    if not match or isinstance(value, bool):
        raise ValueError(f"budget.{kind}: {quoted(value)} is not a number with a unit")
    try:
        number, unit = float(match[1]), match[2]
    except ValueError:  # 1.2.3
        raise ValueError(f"budget.{kind}: {quoted(value)} is not a number with a unit") from None
    if kind == "nbytes":
        if unit.upper() not in _BYTES and isinstance(value, str):
            raise ValueError(
                f"budget.nbytes: {quoted(value)} needs a unit, one of B, KB, MB, GB (1000) or KiB, MiB, GiB (1024); "
                "a plain number is bytes"
            )
        number *= _BYTES.get(unit.upper(), 1)
        number = float(math.floor(round(number, 6))) if math.isfinite(number) else number
    elif kind == "accuracy_drop":
        if unit not in ("pt", "%"):
            raise ValueError(f"budget.accuracy_drop: {quoted(value)} needs the unit pt (percentage points), as 0.1pt")
        number /= 100
    elif unit.upper() not in _COUNTS:
        raise ValueError(f"budget.{kind}: {quoted(value)}; a count is needed, optionally with K, M or G")
    else:
        number *= _COUNTS[unit.upper()]
    if not math.isfinite(number) or (number == 0 and kind != "accuracy_drop"):
        raise ValueError(f"budget.{kind}: {quoted(value)}; a positive value is needed")
    return number


def write_limit(kind: str, value: float) -> str:
    """A budget value with the unit that reading needs back."""
    unit, scale = {"nbytes": ("B", 1), "accuracy_drop": ("pt", 100)}.get(kind, ("", 1))
    return f"{round(value * scale, 9):.12g}{unit}"
