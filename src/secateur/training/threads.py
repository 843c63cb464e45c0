"""How many threads: on a busy machine two can be slower than one, so a short timing decides, once per run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch

from secateur.engine import usable_cpus

_ROUNDS = 5
_GAIN = 1.15  # more threads must be that much faster: a near tie goes to fewer


def choose(step: Callable[[], None], asked: int | Literal["auto"]) -> int:
    """The thread count to train with.

    Args:
        step: one forward and backward pass.
        asked: a count, or `auto`: 1, 2, 4, ... up to the CPUs that this process may use (`engine.usable_cpus`) are
            timed, interleaved.
    """
    if asked != "auto":
        return int(asked)
    cpus = usable_cpus()
    counts = [n for n in (1, 2, 4, 8, 16) if n <= cpus]
    if len(counts) == 1:
        return 1
    before = torch.get_num_threads()
    times: dict[int, list[float]] = {n: [] for n in counts}
    try:
        for i in range(_ROUNDS + 1):
            for n in counts:
                torch.set_num_threads(n)
                began = time.perf_counter()
                step()
                if i:  # the first pass warms up
                    times[n].append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    best = counts[0]
    for n in counts[1:]:
        if statistics.median(times[best]) > _GAIN * statistics.median(times[n]):
            best = n
    return best
