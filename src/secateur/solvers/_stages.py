"""Progressive stages: tightness targets and how the steps of the approach are shared among them."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """Steps [start, start + length) in which the tightness goes from `low` to `high`."""

    start: int
    length: int
    low: float
    high: float


def plan(stages: int | tuple[float, ...], shares: tuple[float, ...], total_steps: int) -> tuple[Stage, ...]:
    """Cut `total_steps` into stages.

    Args:
        stages: number of equal tightness increments, or the tightness at the end of each stage (increasing, last 1).
        shares: relative lengths, one per stage; empty = equal.
    """
    ends = tuple((i + 1) / stages for i in range(stages)) if isinstance(stages, int) else tuple(stages)
    check(stages, shares)
    weights = shares or (1.0,) * len(ends)
    out, at, used, low = [], 0, 0.0, 0.0
    for end, share in zip(ends, weights, strict=True):
        used += share
        stop = round(total_steps * used / sum(weights))
        out.append(Stage(at, stop - at, low, end))
        at, low = stop, end
    return tuple(out)


def check(stages: int | tuple[float, ...], shares: tuple[float, ...]) -> None:
    """Raise UsageError when the stages do not make sense."""
    ends = tuple((i + 1) / stages for i in range(stages)) if isinstance(stages, int) else tuple(stages)
    rising = all(a < b for a, b in zip((0.0, *ends), ends, strict=False))
    if not ends or not rising or abs(ends[-1] - 1.0) > 1e-9:
        raise UsageError(f"solver.stages: {stages!r}; a count >= 1, or increasing tightness values that end in 1")
    if shares and (len(shares) != len(ends) or any(s <= 0 for s in shares)):
        raise UsageError(f"solver.shares: {shares!r}; one positive number for each of the {len(ends)} stages is needed")
