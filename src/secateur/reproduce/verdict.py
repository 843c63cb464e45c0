"""The verdict on a claim: what somebody says against what was found, by the interval over the seeds.

    gain = how much better `part` is than `against` in the measure, or how many times smaller in bytes or nonzeros
    confirmed   the whole interval reaches claimed - margin
    smaller     the whole interval is below that, and above no gain at all
    refuted     the whole interval is below that, and does not exclude that there is no gain
    open        the interval holds the bar, or too little was run: no verdict

The interval is that of a two-sided 90 % t interval of the mean, so that each of its ends alone is right with 95 %
(non-inferiority with its margin: Schuirmann 1987). Seeds that both sides have are compared in pairs; others by
Welch's interval (1947). It is over the seeds of one test part, whose own sampling error the table names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

Json = dict[str, Any]
LEAST_SEEDS = 3
# Student's t, one-sided 95 %, for 1, 2, ... degrees of freedom; beyond them the last, which is the wider interval.
_T = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753),
    *(1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697),
)


def verdict(low: float, high: float, claimed: float, margin: float, nothing: float) -> str:
    """By the rules above; `nothing` is the gain that is none: 0 for a difference, 1 for a ratio.

    >>> [verdict(*x, claimed=3.0, margin=0.5, nothing=0.0) for x in ((2.6, 4), (1, 2), (-1, 2), (-1, 3))]
    ['confirmed', 'smaller', 'refuted', 'open']
    """
    bar = claimed - margin
    if low >= bar:
        return "confirmed"
    if high >= bar:
        return "open"
    return "smaller" if low > nothing else "refuted"


def interval(ours: Mapping[int, float], theirs: Mapping[int, float], paired: bool) -> tuple[float, float, float]:
    """Mean of ours minus theirs (seed -> value), and the ends of its interval; infinite where a side has one seed."""
    a, b = list(ours.values()), list(theirs.values())
    mean = fmean(a) - fmean(b)
    if min(len(a), len(b)) < 2:
        return mean, -math.inf, math.inf
    if paired and ours.keys() == theirs.keys():
        square, freedom = variance([ours[s] - theirs[s] for s in ours]) / len(a), len(a) - 1.0
    else:
        parts = [variance(a) / len(a), variance(b) / len(b)]
        square = sum(parts)
        freedom = square**2 / (_share(parts[0], a) + _share(parts[1], b)) if square else 1.0
    wide = _T[min(int(freedom), len(_T)) - 1] * math.sqrt(square)
    return mean, mean - wide, mean + wide


def _share(square: float, values: Sequence[float]) -> float:
    return square**2 / (len(values) - 1)


def gain(figure: str, ours: Mapping[int, Json], theirs: Mapping[int, Json], paired: bool, sign: int) -> Json:
    """`mean`, `low`, `high` of the gain; sizes as ratios. `sign`: -1 where a lower measure is better."""
    if figure == "measure":
        a, b = ({s: sign * float(f["test"]) for s, f in side.items()} for side in (ours, theirs))
        found = interval(a, b, paired)
    else:  # ratios: their logarithms are subtracted
        a, b = ({s: -math.log(max(f[figure], 1)) for s, f in side.items()} for side in (ours, theirs))
        found = tuple(map(_exp, interval(a, b, paired)))  # type: ignore[assignment]
    ends = (x if math.isfinite(x) else None for x in found)
    return dict(zip(("mean", "low", "high"), ends, strict=True))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
