"""How long one call of a whole net takes: the median of many, with what else the machine did left out and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine.bench import draw
from secateur.engine.session import InferenceSession

Array = NDArray[Any]
RUNS, TURNS = 300, 15
_SECONDS = 0.02  # of a turn at least: warm after a few calls, short against drifts of the clock
_DISTURBED, _AGAIN = 1.1, 4  # a turn's median above the best one's; as many times the turns at most
_COLD, _FEEDS = 3, 32


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call: median, and half the spread (10 to 90 %) of the turns' medians; over so many runs."""

    us: float
    margin_us: float
    runs: int


def timed(
    session: InferenceSession, runs: int = RUNS, turns: int = TURNS, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """One call of the whole net on drawn inputs, warm, batch 1 (or the file's own).

    Args:
        runs: counted at least; the first calls of a turn are not.
        turns: pieces that they are made in. Turns that something else disturbed are made again, as long as there is
            hope; what is left is the machine as it was.
    """
    rng = np.random.default_rng(0)
    feeds = [{n.name: draw(n, 1, rng) for n in session.get_inputs()} for _ in range(_FEEDS)]
    begin, n_warm, cold = clock(), 0, _COLD
    while n_warm < 2 * cold or clock() - begin < _SECONDS:
        session.run(None, feeds[n_warm % _FEEDS])
        n_warm += 1
        if clock() - begin > n_warm * _SECONDS:  # a call as long as a turn warms all there is
            cold = 1
    per_call = max((clock() - begin) / n_warm, 1e-9)
    if per_call > _SECONDS:  # nothing is cold between such turns, which follow one another
        cold = 0
    n = int(np.clip(_SECONDS / per_call, -(-runs // turns), 5000))
    found: list[Array] = []
    while len(found) < _AGAIN * turns:
        found.append(_turn(session, feeds, n, cold, clock))
        if len(found) >= turns and len(_quiet(found)) >= turns:
            break
    kept = sorted(found, key=np.median)[:turns]
    medians = [float(np.median(t)) for t in kept]
    low, high = np.percentile(medians, [10, 90])
    return Timing(float(np.median(np.concatenate(kept))), float(high - low) / 2, n * len(kept))


def _quiet(found: Sequence[Array]) -> list[Array]:
    best = min(float(np.median(t)) for t in found)
    return [t for t in found if np.median(t) <= _DISTURBED * best]


def _turn(
    session: InferenceSession, feeds: Sequence[Mapping[str, Array]], n: int, cold: int, clock: Callable[[], float]
) -> Array:
    times = np.empty(n)
    for i in range(-cold, n):
        feed = feeds[i % len(feeds)]
        start = clock()
        session.run(None, feed)
        if i >= 0:
            times[i] = (clock() - start) * 1e6
    return times
