"""Many models of one kind of input, timed beside each other in every runtime, and compared in the same run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from secateur.engine import agreement, peers
from secateur.engine.bench import check, feeds_of, latencies, measure, runners_of
from secateur.engine.session import InferenceSession, read_model
from secateur.errors import UsageError
from secateur.native import _native


def side_by_side(
    models: Mapping[str, str | os.PathLike[str] | bytes],
    inputs: Any,
    against: Sequence[str] = ("onnxruntime", "openvino"),
    threads: int = 1,
    batch: int = 1,
    seconds: float = 0.5,
    tune: str | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Latency of each model in the engine and its peers; turns of about 20 ms of all of them in a new order each round.

    Args:
        models: name -> file or bytes; all take the same inputs.
        inputs, against, threads, batch, seconds, tune, seed, clock: as of `engine.bench`; no torch.
    Returns:
        `latency_ms` {name: {runtime: {median, p10, p90}}}, `checks` (see `agreement.compare`), `skipped`
        {runtime: reason}, `versions` {runtime: version}, `threads`, `batch`, `n_inputs`, `cpu`, `isa`.
    Raises:
        UsageError: no models, inputs that do not fit. FormatError, UnsupportedError: as `InferenceSession`.
    """
    check(against, threads, batch, seconds)
    if not models or "torch" in against:
        raise UsageError("side_by_side: needs one model at least, and peers that run files: onnxruntime, openvino")
    rng = np.random.default_rng(seed)
    files = {name: read_model(given) for name, given in models.items()}
    sessions = {name: InferenceSession(data, threads=threads, tune=tune) for name, data in files.items()}
    first = next(iter(sessions.values()))
    feeds, _ = feeds_of(first, batch, inputs, rng)
    skipped: dict[str, str] = {}
    with peers.torch_threads():
        runners = runners_of(files, sessions, against, threads, feeds, {}, skipped)
        checks = agreement.compare({(r.runtime, r.model): r.call for r in runners}, files, feeds)
        measure(runners, feeds, seconds, rng, clock)
    return {
        "latency_ms": latencies(runners),
        "checks": checks,
        "skipped": skipped,
        "versions": {r.runtime: r.version for r in runners},
        **{"threads": threads, "batch": batch, "n_inputs": len(feeds)},
        **{"cpu": _native.cpu_name(), "isa": first.isa},
    }
