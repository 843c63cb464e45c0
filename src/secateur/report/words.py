"""Numbers as people read them. All functions take None for "not measured" and answer an en dash."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.budget import kinds
from secateur.types import Packing

NONE = "–"
ZEROED = "zero in place (stored only)"
_FRACTIONS = ("acc", "top1", "top5", "f1", "precision", "recall", "auc", "iou")


def nbytes(n: float | None) -> str:
    """File sizes: 932 B, 18.9 KB, 1.72 MB (1 KB = 1000 bytes)."""
    if n is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(n) >= scale:
            return f"{_digits(n / scale)} {unit}"
    return f"{n:.0f} B"


def count(n: float | None) -> str:
    """Whole numbers with separators: 430,500."""
    return NONE if n is None else f"{n:,.0f}"


def big(n: float | None) -> str:
    """Large counts in short: 430 K, 2.29 M."""
    if n is None:
        return NONE
    for unit, scale in (("G", 1e9), ("M", 1e6), ("K", 1e4)):
        if abs(n) >= scale:
            return f"{_digits(n / (1e3 if unit == 'K' else scale))} {unit}"
    return count(n)


def runs(packings: Sequence[Packing]) -> str:
    """How the engine takes a weight whose support is packed so: which of its zeros it gains by, and how.

    >>> runs([Packing(100, 10)]), runs([Packing(100, 10, pattern="8x1")]), runs([Packing(100, 40, structure_bits=50)])
    ('weight by weight', 'in blocks', 'weight by weight (the shape is stored only)')
    """
    if len(packings) > 1:
        return "as layers"
    (p,) = packings
    if p.nnz == p.n:
        return "dense"
    if p.pattern == "channels":
        return "removed"
    rows, _, cols = p.pattern.partition("x")
    if cols and int(rows) % 2 == 0:  # blocks of more inputs are several of one
        return "in blocks"
    if rows == "1" and int(cols or 1) % 4 == 0:
        return "in blocks where integers; weight by weight in float (the shape is stored only)"
    shaped = p.pattern != "any" or p.structure_bits is not None
    return "weight by weight" + " (the shape is stored only)" * shaped


def milliseconds(ms: float | None) -> str:
    """A duration of a call: 38.2 µs, 1.23 ms, 2.1 s."""
    if ms is None:
        return NONE
    if ms < 1:
        return f"{_digits(ms * 1e3)} µs"
    return f"{_digits(ms)} ms" if ms < 1000 else f"{_digits(ms / 1e3)} s"


def seconds(s: float | None) -> str:
    """A duration of work: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if s is None:
        return NONE
    if s < 59.5:
        return f"{s:.1f} s" if s < 10 else f"{s:.0f} s"
    minutes, rest = divmod(round(s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ratio(before: float | None, after: float | None) -> str:
    """before / after as a factor: 34.2×. Nothing where either is missing or zero."""
    if not before or not after:
        return NONE
    return f"{_digits(before / after)}×"


def number(x: float | None) -> str:
    """A quantity without a unit: 0.0213, 1.35."""
    return NONE if x is None else f"{x:.3g}"


def hundredths(fraction: float | None) -> str:
    """0.0123 -> 1.23, for a column whose title says percent."""
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.123 -> 12.3 %."""
    return NONE if fraction is None else f"{100 * fraction:.{digits}f} %"


def is_fraction(metric: Mapping[str, Any]) -> bool:
    """Is the metric a share that people read in percent (accuracy and its kin)?"""
    name = str(metric.get("name", "")).lower()
    return any(part in name for part in _FRACTIONS)


def higher_is_better(metric: Mapping[str, Any]) -> bool:
    """As recorded; where it is not, losses and errors are better when low."""
    if "higher_is_better" in metric:
        return bool(metric["higher_is_better"])
    name = str(metric.get("name", "")).lower()
    return not any(part in name for part in ("loss", "error", "mse", "mae", "rmse", "perplexity"))


def standard_error(metric: Mapping[str, Any]) -> float | None:
    """As recorded (`std_error`), else half of Wilson's interval (z = 1) of a fraction over `n_examples`, else None.

    The binomial error at 0 or 1 would be 0, as if a test set of 400 could tell 100 % from 99.9.
    """
    given = metric.get("std_error")
    if given is not None:
        return float(given)
    n, value = metric.get("n_examples"), metric.get("value")
    if not n or value is None or not is_fraction(metric) or not 0 <= value <= 1:
        return None
    return float(math.sqrt(value * (1 - value) / n + 0.25 / n**2) / (1 + 1 / n))


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """How much better `after` is (negative = worse), and the standard error of that difference.

    Both nets are read on the same examples; without the pairs, the errors are added as if independent, which is on
    the careful side.
    """
    if not before or not after or before.get("value") is None or after.get("value") is None:
        return None, None
    gap = after["value"] - before["value"]
    if not higher_is_better(after):
        gap = -gap
    a, b = standard_error(before), standard_error(after)
    return gap, None if a is None or b is None else math.hypot(a, b)


def metric(m: Mapping[str, Any] | None, with_error: bool = True) -> str:
    """99.27 % ± 0.09, or 0.1234 ± 0.0011 for what is not a fraction."""
    if not m or m.get("value") is None:
        return NONE
    error = standard_error(m) if with_error else None
    if is_fraction(m):
        return f"{100 * m['value']:.2f} %" + (f" ± {100 * error:.2f}" if error is not None else "")
    return f"{m['value']:.4g}" + (f" ± {error:.2g}" if error is not None else "")


def amount(kind: str, value: float | None) -> str:
    """A budget's value in the unit of its kind."""
    if value is None:
        return NONE
    unit = kinds.unit(kind) or _by_name(kind)
    if unit == "points":
        return f"{100 * value:.2f} points"
    if unit.startswith("bytes") and value >= 1000:
        return f"{nbytes(value)} ({value:,.0f} bytes)"
    if unit in ("bytes", "milliseconds"):
        return short(unit, value)
    return count(value) if float(value).is_integer() else f"{value:.4g}"


def _by_name(kind: str) -> str:
    """The unit that the name of an unknown kind ends with: of somebody else's meter, in a report."""
    return {"ms": "milliseconds", "nbytes": "bytes", "bytes": "bytes"}.get(kind.rpartition("_")[2], "")


def short(unit: str, value: float | None) -> str:
    """A value of that unit in the least space, for tables."""
    if value is None:
        return NONE
    ways = {"bytes": nbytes, "milliseconds": milliseconds, "multiply-adds": big}
    return ways.get(unit, count if float(value).is_integer() else number)(value)


def heading(unit: str) -> str:
    """Over a column of values of that unit."""
    return {"multiply-adds": "MACs", "milliseconds": "ms", "bytes of memory": "memory"}.get(unit, unit)


def agrees(verify: Mapping[str, Any]) -> bool:
    """Do the runtimes agree? As the record says (networks with steps may differ in a few examples), else by the gap."""
    stated = verify.get("agree")
    return bool(verify["max_abs_error"] <= verify["tolerance"] if stated is None else stated)


def _digits(x: float) -> str:
    """Three significant digits, at least the whole part: 1.72, 18.9, 645, 1,234."""
    size = abs(x)
    if size >= 99.95:
        return f"{x:,.0f}"
    return f"{x:.1f}" if size >= 9.995 else f"{x:.2f}"
