"""Whether runtimes that were timed computed the same: in float32 by rounding, in int8 by an oracle and by float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine import quantized
from secateur.engine.oracle import Oracle, oracle
from secateur.engine.peers import Call
from secateur.engine.session import InferenceSession
from secateur.errors import SecateurError, UsageError
from secateur.native import _native

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Outputs = list[Sequence[Array]]  # per feed

JUDGED = 4  # feeds that the oracle computes; it may be slow
APART = 0.05  # of the oracle's results: steps of a grid that layers behind them pass on


def compare(
    calls: Mapping[tuple[str, str], Call], models: Mapping[str, bytes], feeds: Sequence[Feeds]
) -> list[dict[str, Any]]:
    """Every peer against the engine on the same model, all feeds.

    Args:
        calls: (runtime, model) -> call; the runtime "engine" stands in for every model.
    Returns:
        One dict per peer and model: runtime, model, max_abs_error, same_argmax (fraction, None without classes),
        tolerance (None for int8), agree, oracle (in words: what was judged by), and for int8 engine_error, peer_error,
        engine_apart and peer_apart, each where it is known.

        float32: agree when the largest difference is within `tolerance`. int8: rounding differs by a step here and
        there and every layer passes that on, so no bound per element is meant, and a peer may be wrong by itself
        (`oracle.py`). Distances are Euclidean norms relative to what they are from: errors from the result in float32,
        over all feeds; `apart` from the oracle's result, over `JUDGED` of them. Agree: engine_error <= 1.1 peer_error
        + 0.01 and engine_apart <= 1.1 peer_apart + APART, of those that are known; None where neither is.
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
        exact, exact_by = _in_float(which, calls, data, feeds) if integers else (None, "")
        judge = _judge(data, feeds) if integers else None
        tolerance = None if integers else max(_tolerance(call, f, y) for f, y in zip(feeds[:4], ours, strict=False))
        for runtime, other in others.items():
            theirs: Outputs = [_numbers(other(f)) for f in feeds]
            check = {"runtime": runtime, "model": which, **_differences(runtime, ours, theirs), "tolerance": tolerance}
            if tolerance is not None:
                check |= {"agree": bool(check["max_abs_error"] <= tolerance), "oracle": "one another"}
                checks.append(check)
                continue
            near = []
            if exact is not None:
                check["engine_error"], check["peer_error"] = relative_error(ours, exact), relative_error(theirs, exact)
                near.append(check["engine_error"] <= 1.1 * check["peer_error"] + 0.01)
            if judge is not None:
                truth = judge[1]
                check["engine_apart"], check["peer_apart"] = (
                    relative_error(found[: len(truth)], truth) for found in (ours, theirs)
                )
                near.append(check["engine_apart"] <= 1.1 * check["peer_apart"] + APART)
            names = [judge[0].name] if judge is not None else []
            check["oracle"] = " and ".join(names + [exact_by] * (exact is not None)) or "nobody"
            check["agree"] = all(near) if near else None
            checks.append(check)
    return checks


def _numbers(outputs: Sequence[Any]) -> list[Array]:
    """Those of the outputs that rounding can touch: no strings, sequences or maps."""
    return [a for a in outputs if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"]


def _unpacked(data: bytes) -> bytes:
    if not _native.is_sct(data):
        return data
    from secateur.formats import unpack

    return unpack(data)


def _judge(data: bytes, feeds: Sequence[Feeds]) -> tuple[Oracle, Outputs] | None:
    """The oracle of an int8 model and its results for the first feeds."""
    model = _unpacked(data)
    found = oracle(model)
    if found is None:
        return None
    names = dict(zip((i.name for i in _native.interface(model)[0]), feeds[0], strict=True))
    try:
        return found, [_numbers(found.call({own: f[name] for own, name in names.items()})) for f in feeds[:JUDGED]]
    except Exception:  # an operator that it lacks shows when it runs; neither oracle has errors of its own
        return None


def _in_float(
    which: str, calls: Mapping[tuple[str, str], Call], data: bytes, feeds: Sequence[Feeds]
) -> tuple[Outputs | None, str]:
    """The float32 results an int8 model stands for, and whose: of the model it was made from, or of its float form."""
    made_from = calls.get(("engine", which.removesuffix("_int8")))
    if which.endswith("_int8") and made_from is not None:
        return [_numbers(made_from(f)) for f in feeds], "the float32 net it was made from"
    plain = quantized.float_form(_unpacked(data))
    if plain is None:
        return None, ""
    try:
        session = InferenceSession(plain, threads=1, fallback=None)
    except SecateurError:
        return None, ""
    names = dict(zip((i.name for i in session.get_inputs()), feeds[0], strict=True))
    run = session.run
    return [_numbers(run(None, {own: f[name] for own, name in names.items()})) for f in feeds], "its own float32 form"


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
