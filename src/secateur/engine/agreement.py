"""Whether runtimes that were timed computed the same: in float32 by rounding, in int8 by the distance from float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine import quantized
from secateur.engine.peers import Call
from secateur.engine.session import InferenceSession
from secateur.errors import SecateurError, UsageError

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Outputs = list[Sequence[Array]]  # per feed


def compare(
    calls: Mapping[tuple[str, str], Call], models: Mapping[str, bytes], feeds: Sequence[Feeds]
) -> list[dict[str, Any]]:
    """Every peer against the engine on the same model, all feeds.

    Args:
        calls: (runtime, model) -> call; the runtime "engine" stands in for every model.
    Returns:
        One dict per peer and model: runtime, model, max_abs_error, same_argmax (fraction, None without classes),
        tolerance (None for int8), agree, and for int8 engine_error and peer_error.

        float32: agree when the largest difference is within `tolerance`. int8: rounding differs by a step here and
        there and every layer passes that on, so no bound per element is meant. Errors are Euclidean norms over all
        feeds relative to the result in float32; agree: engine <= 1.1 peer + 0.01. None where there is no float32 form.
    Raises:
        UsageError: outputs of different shapes.
    """
    checks = []
    for which, data in models.items():
        call = calls["engine", which]
        ours: Outputs = [_numbers(call(f)) for f in feeds]
        others = {runtime: c for (runtime, model), c in calls.items() if model == which and runtime != "engine"}
        if not others:
            continue
        integers = quantized.computes_in_integers(data)
        exact = _in_float(which, calls, data, feeds) if integers else None
        tolerance = None if integers else max(_tolerance(call, f, y) for f, y in zip(feeds[:4], ours, strict=False))
        for runtime, other in others.items():
            theirs: Outputs = [_numbers(other(f)) for f in feeds]
            check = {"runtime": runtime, "model": which, **_differences(runtime, ours, theirs), "tolerance": tolerance}
            if tolerance is not None:
                check["agree"] = bool(check["max_abs_error"] <= tolerance)
            elif exact is None:
                check["agree"] = None
            else:
                check["engine_error"], check["peer_error"] = relative_error(ours, exact), relative_error(theirs, exact)
                check["agree"] = bool(check["engine_error"] <= 1.1 * check["peer_error"] + 0.01)
            checks.append(check)
    return checks


def _numbers(outputs: Sequence[Any]) -> list[Array]:
    """Those of the outputs that rounding can touch: no strings, sequences or maps."""
    return [a for a in outputs if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"]


def _in_float(which: str, calls: Mapping[tuple[str, str], Call], data: bytes, feeds: Sequence[Feeds]) -> Outputs | None:
    """The float32 results that an int8 model stands for: of the model it was made from, or of its own float form."""
    made_from = calls.get(("engine", which.removesuffix("_int8")))
    if which.endswith("_int8") and made_from is not None:
        return [_numbers(made_from(f)) for f in feeds]
    plain = quantized.float_form(data)
    if plain is None:
        return None
    try:
        session = InferenceSession(plain, threads=1, fallback=None)
    except SecateurError:
        return None
    names = dict(zip((i.name for i in session.get_inputs()), feeds[0], strict=True))
    return [_numbers(session.run(None, {own: f[name] for own, name in names.items()})) for f in feeds]


def relative_error(outputs: Outputs, exact: Outputs) -> float:
    """Euclidean norm of the difference over all feeds and outputs, relative to that of `exact`."""
    gap = size = 0.0
    for ours, theirs in zip(outputs, exact, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            gap += float(np.sum((a.astype(np.float64) - b) ** 2))
            size += float(np.sum(b.astype(np.float64) ** 2))
    return float(np.sqrt(gap / size)) if size else 0.0


def _differences(runtime: str, ours: Outputs, theirs: Outputs) -> dict[str, Any]:
    worst, same, total = 0.0, 0, 0
    for want, got in zip(ours, theirs, strict=True):
        for a, b in zip(want, got, strict=True):
            if a.shape != b.shape:
                raise UsageError(f"{runtime}: output shape {b.shape}, the engine's is {a.shape}")
            if a.size:
                gap = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))
                worst = max(worst, gap if np.isfinite(gap) else float(np.finfo(np.float64).max))
            if a.ndim == 2 and a.shape[1] > 1:
                same += int(np.sum(np.argmax(a, axis=1) == np.argmax(b, axis=1)))
                total += len(a)
    return {"max_abs_error": worst, "same_argmax": same / total if total else None}


def _tolerance(call: Call, feed: Feeds, outputs: Sequence[Array]) -> float:
    """What float32 rounding may do: 64 times the change that one unit in the last place of the inputs makes, + 256 ulp.

    Every layer rounds its inputs as the perturbation rounds the net's, in another order in each runtime; 64 leaves room
    for depth and for cancellation inside long sums, and stays far below what a wrong weight would do.
    """
    eps = float(np.finfo(np.float32).eps)
    moved = {n: a * np.float32(1 + eps) if a.dtype == np.float32 else a for n, a in feed.items()}
    change = size = 0.0
    for a, b in zip(outputs, _numbers(call(moved)), strict=True):
        if a.size and a.dtype.kind == "f":
            change = max(change, float(np.max(np.abs(a - b))))
            size = max(size, float(np.max(np.abs(a))))
    return 64 * change + 256 * eps * size
