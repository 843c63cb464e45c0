"""Says in words what a run won and what it did not, from the record alone. Every sentence carries its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.report import words
from secateur.report.advice import advice

# A layer that still holds this share of the file or of the work is worth a sentence.
_LARGE_SHARE = 0.5
_OVERHEAD_SHARE = 0.3
_UNSURE = 0.05  # a calibration error above the dense net's by more than this changes what probabilities mean
_CLOSE = 0.01  # relative difference of two metrics below which nothing is claimed without a standard error


@dataclass(frozen=True)
class Finding:
    """One sentence. kind: `won`, `not_won` (an honest limit) or `failed` (a check or budget that does not hold)."""

    kind: str
    text: str


def headline(record: Mapping[str, Any]) -> str:
    """One line: how much smaller, how much faster, at what accuracy."""
    dense, small = record["dense"], record["compressed"]
    parts = []
    size = _factor(dense.get("nbytes"), small.get("nbytes"))
    if size:
        parts.append(f"{_times(size)} smaller" if size >= 1.005 else f"{_times(1 / size)} larger")
    runtime, reference = reference_latency(record)
    speed = _factor(reference, latency(small, "engine"))
    if speed:
        than = f"than the dense net in {runtime_name(runtime)}"
        parts.append(f"{_times(speed)} faster {than}" if speed >= 1.005 else f"{_times(1 / speed)} slower {than}")
    text = " and ".join(parts) or "Compressed"
    before, after = dense.get("metric"), small.get("metric")
    if before and after and before.get("value") is not None and after.get("value") is not None:
        name = str(after.get("name", "metric"))
        text += f"; {name} {words.metric(before, False)} → {words.metric(after, False)}"
    return text[0].upper() + text[1:]


def findings(record: Mapping[str, Any]) -> list[Finding]:
    """All sentences, failures first, then what was won, then what was not."""
    every = [
        *_checks(record),
        *_size(record),
        *_accuracy(record),
        *_certainty(record),
        *_speed(record),
        *_baselines(record),
        *_where_it_does_not_pay(record),
        *(Finding("not_won", f"To lose less: {line}.") for line in advice(record)),
    ]
    order = {"failed": 0, "won": 1, "not_won": 2}
    return sorted(every, key=lambda f: order[f.kind])


def latency(net: Mapping[str, Any] | None, runtime: str) -> float | None:
    """Median milliseconds of a call, or None where it was not measured."""
    times = ((net or {}).get("latency_ms") or {}).get(runtime)
    return times["median"] if times else None


def reference_latency(record: Mapping[str, Any]) -> tuple[str, float | None]:
    """What the compressed net in our engine is compared with: the dense net in ONNX Runtime, else torch, else ours."""
    for runtime in ("onnxruntime", "torch", "engine"):
        found = latency(record["dense"], runtime)
        if found is not None:
            return runtime, found
    return "onnxruntime", None


RUNTIMES = {"engine": "Secateur", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}


def runtime_name(runtime: str) -> str:
    """The name people know a runtime by."""
    return RUNTIMES.get(runtime, runtime)


def _checks(record: Mapping[str, Any]) -> Iterator[Finding]:
    for item in record["budget"]:
        name, asked, reached = item["name"], item.get("asked"), item.get("reached")
        if item.get("met") is False:
            text = (
                f"The budget {name} is not met: asked {words.amount(name, asked)}, got {words.amount(name, reached)}."
            )
            yield Finding("failed", text)
    verify = record["verify"] or {}
    error, tolerance = verify.get("max_abs_error"), verify.get("tolerance")
    if error is not None and tolerance is not None and error > tolerance:
        yield Finding(
            "failed",
            f"Verification failed: engine, ONNX Runtime and PyTorch differ by {error:.3g}, more than {tolerance:.3g}.",
        )


def _size(record: Mapping[str, Any]) -> Iterator[Finding]:
    before, after = record["dense"].get("nbytes"), record["compressed"].get("nbytes")
    factor = _factor(before, after)
    if not factor:
        return
    sizes = f"{words.nbytes(before)} → {words.nbytes(after)}"
    if factor > 1.005:
        yield Finding("won", f"The file is {_times(factor)} smaller: {sizes}, everything included.")
    else:
        yield Finding("not_won", f"The file is not smaller: {sizes}.")


def _accuracy(record: Mapping[str, Any]) -> Iterator[Finding]:
    before, after = record["dense"].get("metric"), record["compressed"].get("metric")
    gap, error = difference(before, after)
    if gap is None or before is None or after is None:
        return
    if after.get("difference_std_error") is not None:  # measured on pairs of answers to the same examples
        error = float(after["difference_std_error"])
    name = str(after.get("name", "metric"))
    change = f"{words.metric(before)} → {words.metric(after)}"
    if error is None:
        kind = "won" if gap >= 0 else "not_won"
        yield Finding(kind, f"The {name} goes {change}; no standard error was recorded.")
    elif gap >= -2 * error:
        unit = _gap_words(after, 2 * error)
        yield Finding("won", f"The {name} holds within what the test set can tell (± {unit}): {change}.")
    else:
        yield Finding("not_won", f"The {name} drops by {_gap_words(after, -gap)}, more than the noise: {change}.")


def _certainty(record: Mapping[str, Any]) -> Iterator[Finding]:
    """A good accuracy can hide a broken net: its probabilities may be worth nothing."""
    before, after = record["dense"].get("metric") or {}, record["compressed"].get("metric") or {}
    if any(m.get(k) is None for m in (before, after) for k in ("loss", "calibration_error")):
        return
    told = (
        f"cross-entropy {before['loss']:.3g} → {after['loss']:.3g}, expected calibration error "
        f"{words.percent(before['calibration_error'])} → {words.percent(after['calibration_error'])}"
    )
    worse = after["calibration_error"] - before["calibration_error"]
    if worse > _UNSURE:
        yield Finding(
            "not_won",
            f"Its probabilities mean less than the dense net's: {told}; where they are used, not only the best class, "
            "train longer at a lower rate, or scale its scores on held-out data.",
        )
    else:
        yield Finding("won" if worse <= 0 else "not_won", f"How sure it is: {told}.")


def _speed(record: Mapping[str, Any]) -> Iterator[Finding]:
    ours = latency(record["compressed"], "engine")
    runtime, reference = reference_latency(record)
    factor = _factor(reference, ours)
    if not factor or reference is None:
        return
    other = runtime_name(runtime)
    times = f"{words.milliseconds(reference)} → {words.milliseconds(ours)}"
    if factor >= 1.05:
        yield Finding("won", f"A call is {_times(factor)} faster than the dense net in {other}: {times}.")
    else:
        yield Finding("not_won", f"A call is not faster than the dense net in {other}: {times}.")
    own_dense = latency(record["dense"], "engine")
    if own_dense is not None and runtime != "engine":
        share = own_dense / ours if ours else 0
        yield Finding(
            "won" if share >= 1.05 else "not_won",
            f"Compression itself brings {_times(share)} of the speed: the dense net takes "
            f"{words.milliseconds(own_dense)} in our engine.",
        )
    same_file = latency(record["compressed"], "onnxruntime")
    if same_file is not None and ours is not None and same_file < ours:
        text = f"ONNX Runtime runs the compressed file faster than our engine: {words.milliseconds(same_file)}."
        yield Finding("not_won", text)


def _baselines(record: Mapping[str, Any]) -> Iterator[Finding]:
    best = record["compressed"].get("metric")
    if record.get("outcome") == "one_shot_better":
        text = "The solver did not beat one-shot projection with the same retraining; the one-shot net is the answer."
        yield Finding("not_won", text)
    for key, what in (
        ("one_shot", "One-shot pruning with the same retraining"),
        ("control", "A small dense net trained as long, at the same size,"),
    ):
        other = (record.get(key) or {}).get("metric")
        gap, error = difference(other, best)
        if gap is None or best is None or (key == "one_shot" and record.get("outcome") == "one_shot_better"):
            continue
        pair = f"{words.metric(other)} against {words.metric(best)}"
        if error is not None and abs(gap) <= 2 * error:
            yield Finding("not_won", f"{what} does as well within the noise: {pair}.")
        elif error is None and abs(gap) <= _CLOSE * abs(best["value"]):
            yield Finding("not_won", f"{what} does about as well: {pair}; no standard error was recorded.")
        elif gap > 0:
            yield Finding("won", f"{what} is worse by {_gap_words(best, gap)}: {pair}.")
        else:
            yield Finding("not_won", f"{what} is better: {pair}. Take it instead.")


def _where_it_does_not_pay(record: Mapping[str, Any]) -> Iterator[Finding]:
    layers, total = record["layers"], record["compressed"].get("nbytes")
    weights = [layer for layer in layers if layer.get("op") not in ("bias", "norm")]
    coded = sum(layer.get("nbytes") or 0 for layer in weights)
    if total and layers and coded and (total - coded) / total > _OVERHEAD_SHARE:
        rest = total - coded
        part = f"{words.percent(rest / total, 0)} of the file ({words.nbytes(rest)})"
        text = f"{part} is not weights: graph, header, biases."
        yield Finding("not_won", text)
    for layer in weights:
        share = (layer.get("nbytes") or 0) / total if total else 0
        n = math.prod(layer["shape"])
        density = layer["nnz"] / n if n else 0
        if share > _LARGE_SHARE and len(weights) > 1:
            yield Finding(
                "not_won",
                f"{layer['name']} alone is {words.percent(share, 0)} of the file; more size is won only there.",
            )
        kernel = str(layer.get("kernel") or "")
        if "dense" in kernel and density < 0.9:
            text = (
                f"{layer['name']} runs dense ({kernel}): at {words.percent(density, 0)} density its zeros do not pay."
            )
            yield Finding("not_won", text)
        if layer.get("note"):
            yield Finding("not_won", f"{layer['name']}: {layer['note']}")


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """How much better `after` is (negative = worse), and the standard error of that difference.

    Both nets are read on the same examples; without the pairs, the errors are added as if independent, which is on
    the careful side.
    """
    if not before or not after or before.get("value") is None or after.get("value") is None:
        return None, None
    gap = after["value"] - before["value"]
    if not words.higher_is_better(after):
        gap = -gap
    a, b = words.standard_error(before), words.standard_error(after)
    return gap, None if a is None or b is None else math.hypot(a, b)


def _factor(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def _times(factor: float) -> str:
    return words.ratio(factor, 1)


def _gap_words(metric: Mapping[str, Any], gap: float) -> str:
    return f"{100 * gap:.2f} points" if words.is_fraction(metric) else f"{gap:.3g}"
