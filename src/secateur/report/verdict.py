"""Says in words what a run won and what it did not, from the record alone. Every sentence carries its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.report import words
from secateur.report.advice import advice, is_large

# A layer that still holds this share of the file or of the work is worth a sentence.
_LARGE_SHARE = 0.5
_VECTORS = ("bias", "norm", "vector")
_OVERHEAD_SHARE = 0.3
_UNSURE = 0.05  # a calibration error above the dense net's by more than this changes what probabilities mean
_AS_FAST = 1.05  # times nearer to one another than this are the same: two runs of one net differ by as much
_LESS_SURE, _LOSS_APART = 2.0, 0.1  # a loss that many times, and by so many nats, above the dense net's is said
_DENSE_SHARE = 0.1  # of a call's time: below it nobody minds that a layer runs dense
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
        parts.append(_compared(size, "smaller", "larger", "of the same size"))
    runtime, reference = reference_latency(record)
    speed = _factor(reference, latency(small, "engine"))
    if speed:
        how = _compared(speed, "faster than", "slower than", "as fast as", _AS_FAST)
        parts.append(f"{how} the dense net in {runtime_name(runtime)}")
    text = " and ".join(parts) or "Compressed"
    before, after = dense.get("metric"), small.get("metric")
    if before and after and before.get("value") is not None and after.get("value") is not None:
        name = str(after.get("name", "metric"))
        was = "" if dense.get("trained") is False else f"{words.metric(before, False)} → "
        text += f"; {name} {was}{words.metric(after, False)}"
    return text[0].upper() + text[1:]


def findings(record: Mapping[str, Any]) -> list[Finding]:
    """All sentences, failures first, then what was won, then what was not."""
    every = [
        *_checks(record),
        *_size(record),
        *_accuracy(record),
        *_certainty(record),
        *_emptied(record),
        *_speed(record),
        *_baselines(record),
        *_where_it_does_not_pay(record),
        *(Finding("not_won", f"To lose less: {line}.") for line in (advice(record) if is_large(record) else ())),
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
    if error is not None and tolerance is not None and not words.agrees(verify):
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
    gap, error = words.difference(before, after)
    if gap is None or before is None or after is None:
        return
    if after.get("difference_std_error") is not None:  # measured on pairs of answers to the same examples
        error = float(after["difference_std_error"])
    name = str(after.get("name", "metric"))
    if record["dense"].get("trained") is False:
        yield Finding("not_won", f"The {name} is {words.metric(after)}; no dense net was trained to compare it with.")
        return
    change = f"{words.metric(before)} → {words.metric(after)}"
    if error is None:
        kind = "won" if gap >= 0 else "not_won"
        yield Finding(kind, f"The {name} goes {change}; no standard error was recorded.")
    elif gap >= -2 * error:
        yield Finding("won", f"The {name} holds within {_judges(after, _gap_words(after, 2 * error))}: {change}.")
    else:
        yield Finding("not_won", f"The {name} drops by {_gap_words(after, -gap)}, more than the noise: {change}.")


def _certainty(record: Mapping[str, Any]) -> Iterator[Finding]:
    """A good accuracy can hide a broken net: its probabilities may be worth nothing."""
    before, after = record["dense"].get("metric") or {}, record["compressed"].get("metric") or {}
    if any(m.get(k) is None for m in (before, after) for k in ("loss", "calibration_error")):
        return
    if record["dense"].get("trained") is False:
        return
    told = (
        f"cross-entropy {before['loss']:.3g} → {after['loss']:.3g}, expected calibration error "
        f"{words.percent(before['calibration_error'])} → {words.percent(after['calibration_error'])}"
    )
    worse = after["calibration_error"] - before["calibration_error"]
    far = after["loss"] > _LESS_SURE * before["loss"] and after["loss"] - before["loss"] > _LOSS_APART
    if worse > _UNSURE or far:
        yield Finding(
            "not_won",
            f"Its probabilities mean less than the dense net's: {told}; where they are used, not only the best class, "
            "train longer at a lower rate, or scale its scores on held-out data.",
        )
    else:
        yield Finding("won" if worse <= 0 else "not_won", f"How sure it is: {told}.")


def _judges(metric: Mapping[str, Any], unit: str) -> str:
    """Who says so: a test set, or the validation examples that the answer was chosen by."""
    if metric.get("split", "test") == "test":
        return f"what the test set can tell (± {unit})"
    n = f"{metric['n_examples']:,} " if metric.get("n_examples") else ""
    return f"the noise of {n}{metric['split']} examples (± {unit}; no test set was given, and the run chose by them)"


def _speed(record: Mapping[str, Any]) -> Iterator[Finding]:
    ours = latency(record["compressed"], "engine")
    runtime, reference = reference_latency(record)
    factor = _factor(reference, ours)
    if not factor or reference is None or ours is None:
        return
    other = runtime_name(runtime)
    times = f"{words.milliseconds(reference)} → {words.milliseconds(ours)}"
    how = _compared(factor, "faster than", "slower than", "as fast as", _AS_FAST)
    won = factor >= _AS_FAST
    limits = "" if won else _limits(record)
    yield Finding("won" if won else "not_won", f"A call is {how} the dense net in {other}: {times}.{limits}")
    own_dense = latency(record["dense"], "engine")
    if own_dense is not None and runtime != "engine":
        share = own_dense / ours
        how = f"{_times(share)} of the speed" if share >= _AS_FAST else "no speed"
        yield Finding(
            "won" if share >= _AS_FAST else "not_won",
            f"Compression itself brings {how}: the dense net takes {words.milliseconds(own_dense)} in our engine.",
        )
    same_file = latency(record["compressed"], "onnxruntime")
    if same_file is not None and same_file * _AS_FAST < ours:
        text = f"ONNX Runtime runs the compressed file faster than our engine: {words.milliseconds(same_file)}."
        yield Finding("not_won", text)
    covered = (record.get("coverage") or {}).get("compressed") or {}
    if handed := covered.get("handed_over"):
        kinds = ", ".join(dict.fromkeys(str(h["op"]) for h in handed))
        yield Finding(
            "not_won",
            f"ONNX Runtime has to run {len(handed)} of {covered['n_nodes']} nodes: {kinds}. That is not ours.",
        )


def steps(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The engine's layers as timed one by one: name, kernel, time_us; the slowest first. Empty where not done."""
    timed = [s for s in (record.get("bench") or {}).get("layers") or [] if s.get("time_us")]
    return sorted(timed, key=lambda s: -s["time_us"])


def kernel_of(layer: Mapping[str, Any], timed: Mapping[str, Mapping[str, Any]]) -> str:
    """The kernel that takes a layer's weight, by the step of its name or of its module's."""
    name = str(layer["name"])
    found = timed.get(name) or (timed.get(name.removesuffix(".weight")) if name.endswith(".weight") else None)
    return str(layer.get("kernel") or (found or {}).get("kernel") or "")


def _limits(record: Mapping[str, Any]) -> str:
    """What the time goes into, as a sentence."""
    slowest = steps(record)[:2]
    if not slowest:
        return ""
    total = sum(s["time_us"] for s in steps(record))
    named = " and ".join(f"{s['name'] or s['op']} ({words.percent(s['time_us'] / total, 0)})" for s in slowest)
    return f" Most of its time goes into {named}."


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
        gap, error = words.difference(other, best)
        if gap is None or best is None or (key == "one_shot" and record.get("outcome") == "one_shot_better"):
            continue
        pair = f"{words.metric(other)} against {words.metric(best)}{_sizes(record[key], record['compressed'])}"
        if error is not None and abs(gap) <= 2 * error:
            yield Finding("not_won", f"{what} does as well within the noise: {pair}.")
        elif error is None and abs(gap) <= _CLOSE * abs(best["value"]):
            yield Finding("not_won", f"{what} does about as well: {pair}; no standard error was recorded.")
        elif gap > 0:
            yield Finding("won", f"{what} is worse by {_gap_words(best, gap)}: {pair}.")
        else:
            yield Finding("not_won", f"{what} is better: {pair}. Take it instead.")


def _sizes(other: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Both sizes, where they are not the same."""
    a, b = other.get("nbytes"), best.get("nbytes")
    return f", at {words.nbytes(a)} and {words.nbytes(b)}" if a and b and a != b else ""


def _emptied(record: Mapping[str, Any]) -> Iterator[Finding]:
    """Layers that hold no weight any more, which a good metric can hide (a branch beside a sum) and a bad one means."""
    gone = [str(x["name"]) for x in record["layers"] if x.get("op") not in _VECTORS and x["nnz"] == 0]
    if gone:
        named = f"{', '.join(gone[:3])}{f' and {len(gone) - 3} more' if len(gone) > 3 else ''}"
        yield Finding(
            "not_won",
            f"Every weight is zero in {named}: nothing that goes in comes out there, only a constant. If that was not "
            f"meant, allow a larger budget, or exclude {gone[0]} in the recipe.",
        )


def _where_it_does_not_pay(record: Mapping[str, Any]) -> Iterator[Finding]:
    layers, total = record["layers"], record["compressed"].get("nbytes")
    tensors = sum(s["nbytes"] for s in record.get("sections") or [] if s.get("kind") == "tensor")
    if total and tensors and (total - tensors) / total > _OVERHEAD_SHARE:
        rest = total - tensors
        part = f"{words.percent(rest / total, 0)} of the file ({words.nbytes(rest)})"
        yield Finding("not_won", f"{part} is no tensor: graph, names, header.")
    weights = [layer for layer in layers if layer.get("op") not in _VECTORS]
    timed = {s["name"]: s for s in steps(record)}
    whole = sum(s["time_us"] for s in timed.values())
    for layer in weights:
        share = (layer.get("nbytes") or 0) / total if total else 0
        n = math.prod(layer["shape"])
        density = layer["nnz"] / n if n else 0
        if share > _LARGE_SHARE and len(weights) > 1:
            held = f" It is left as it is ({layer['left_out']})." if layer.get("left_out") else ""
            yield Finding(
                "not_won",
                f"{layer['name']} alone is {words.percent(share, 0)} of the file; more size is won only there.{held}",
            )
        kernel = kernel_of(layer, timed)
        step = timed.get(str(layer["name"]).removesuffix(".weight"))
        minor = step is not None and step["time_us"] < _DENSE_SHARE * whole
        if "dense" in kernel and density < 0.9 and not minor:
            text = (
                f"{layer['name']} runs dense ({kernel}): at {words.percent(density, 0)} density its zeros do not pay."
            )
            yield Finding("not_won", text)
        if layer.get("note"):
            yield Finding("not_won", f"{layer['name']}: {layer['note']}")


def _factor(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def _compared(factor: float, more: str, less: str, same: str, within: float = 1.005) -> str:
    """`2.48× smaller`, `1.20× larger`, or `of the same size`: no factor where there is nothing to tell."""
    if factor >= within:
        return f"{_times(factor)} {more}"
    return f"{_times(1 / factor)} {less}" if factor <= 1 / within else same


def _times(factor: float) -> str:
    return words.ratio(factor, 1)


def _gap_words(metric: Mapping[str, Any], gap: float) -> str:
    return f"{100 * gap:.2f} points" if words.is_fraction(metric) else f"{gap:.3g}"
