"""Int8 from a float32 ONNX file and calibration data: no torch, no training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from secateur.constraints._observers import ENDS, OBSERVERS, PERCENTILE, scale_of
from secateur.engine import InferenceSession, bench, inspect
from secateur.errors import CheckError, HandedOverWarning, UsageError
from secateur.export._canonical import Canonical
from secateur.limits import near, quoted
from secateur.post_training import table
from secateur.post_training.calibration import Examples, Given, examples
from secateur.post_training.differences import differences
from secateur.post_training.places import Grid, Layer, grids, layers
from secateur.post_training.ranges import Report, find_shapes, samples
from secateur.post_training.reading import assembled, read, simplified
from secateur.post_training.writing import written
from secateur.shell import saving
from secateur.shell.showing import Shown

_SAME = 1e-3  # relative difference up to which two float32 forms are the same function
_TIMED = 64  # examples in rotation
_ASKED = "kept float, as asked"


@dataclass(frozen=True)
class Quantized:
    """An int8 network and what is to be said of it.

    Attributes:
        model: the ONNX file's bytes: QuantizeLinear and DequantizeLinear around layers.
        report: `layers` (name, weight, op, shape, arithmetic `int8` or `float32`, why), `activations` (values that
            share a grid, scale, ends of the codes), `outputs` (by name, `differences`), `n_examples`, `observer`,
            `nbytes` {float32, int8} of the ONNX files, `latency_ms` {float32, int8} (None: not timed).
    """

    model: bytes
    report: Shown

    def __str__(self) -> str:
        return str(self.report)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ONNX file; a path that ends in .sct gets the packed form."""
        from secateur import formats

        packed = Path(path).suffix == ".sct"
        saving.write_bytes(Path(path), formats.pack(self.model) if packed else self.model)


def quantize(
    path_or_bytes: str | os.PathLike[str] | bytes,
    calib: Given,
    *,
    keep: str | Sequence[str] = (),
    observer: str = "minmax",
    percentile: float = PERCENTILE,
    threads: int | None = None,
    bench_seconds: float | None = None,
    on_progress: Report = None,
) -> Quantized:
    """Convolutions and linear layers, and what lies between them, in 8-bit integers.

    Batch norms are folded into the layers before them. Weights: symmetric int8, one scale per output. Activations: one
    scale per tensor, found by `observer` over all examples; codes 0..255 behind a Relu, -128..127 elsewhere, no zero
    point. Biases: int32 on the grid of their sums. Sums, means, joins, pools and functions between integer layers stay
    in integers; what cannot be is float32, and `report` says why.

    Args:
        path_or_bytes: a float32 .onnx or .sct file of any exporter, opset 7 to 23, or its bytes.
        calib: examples as the network gets them: an array for one input, a mapping by input name, or the path of an
            .npy or .npz file with these; the first axis = examples. Models for one example run them one by one.
        keep: patterns (`*` and `?`) of layers that stay float32: their nodes' names, or those of their weights.
        observer: minmax, moving, percentile, mse or entropy.
        percentile: for that observer.
        threads: of the engine; None: all CPUs the process may use.
        bench_seconds: time both forms for so long, one call on one thread; None: not.
        on_progress: called with `types.Progress`: stages `ranges` and `check`, in batches.
    Raises:
        UsageError: a model that is quantized already, a pattern that matches nothing, calibration data that do not fit.
        FormatError, UnsupportedError: as `InferenceSession`; and graphs with branches, or of other domains.
        ConstraintError: NaN or infinity inside the network. CheckError: ONNX's converter changed what it computes.
    Reference: Jacob et al., CVPR 2018, arXiv:1712.05877; Krishnamoorthi, arXiv:1806.08342, sec. 3 (after training).
    """
    if observer not in OBSERVERS:
        raise UsageError(f"observer: got {quoted(observer)}; {', '.join(OBSERVERS)} are possible")
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile: got {percentile:g}; above 50 and at most 100 is needed")
    subject, model = read(path_or_bytes)
    original = model.SerializeToString()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        dense = InferenceSession(original, threads)
        data = examples(calib, dense.get_inputs(), subject)
        g = simplified(model, subject)
        every = layers(g)
        left = _kept(every, [keep] if isinstance(keep, str) else list(keep), subject)
        _check_same(g, dense, data, threads, subject)
        find_shapes(g, data, threads)
        seen: dict[str, Any] = {}
        while True:
            chosen = [x for x in every if x.result not in left]
            if not chosen:
                raise UsageError(f"{subject}: no layer to quantize: {_reasons(every, left)}")
            places = grids(g, chosen)
            values = [v for p in places for v in p.values if v not in seen]
            seen |= samples(g, values, data, threads, on_progress) if values else {}
            scales = [_scale(p, seen, observer, percentile) for p in places]
            made = written(g, chosen, places, scales)
            refused = _refused(made, chosen)
            if not refused:
                break
            left |= refused
        onnx.checker.check_model(onnx.load_model_from_string(made), full_check=True)
        outputs = differences(dense, InferenceSession(made, threads), data, on_progress)
    report = {
        "layers": [_layer_row(g, x, left) for x in every],
        "activations": [_grid_row(p, s) for p, s in zip(places, scales, strict=True)],
        "outputs": outputs,
        "n_examples": data.n,
        "observer": observer,
        "nbytes": {"float32": len(original), "int8": len(made)},
        "latency_ms": _times(original, made, data, bench_seconds),
    }
    return Quantized(made, Shown(report, table.show))


def _kept(every: Sequence[Layer], patterns: Sequence[str], subject: str) -> dict[str, str]:
    """Result of a layer -> why it stays float32."""
    left = {x.result: x.why_not for x in every if x.why_not}
    for pattern in patterns:
        hit = [x for x in every if any(fnmatchcase(name, pattern) for name in x.names)]
        if not hit:
            known = [name for x in every for name in x.names]
            raise UsageError(f"keep: pattern {quoted(pattern)} matches no layer of {subject}{near(pattern, known)}")
        left |= {x.result: _ASKED for x in hit}
    return left


def _reasons(every: Sequence[Layer], left: Mapping[str, str]) -> str:
    if not every:
        return "it has no Conv, Gemm or MatMul with constant weights"
    return "; ".join(f"{quoted(x.name)}: {left[x.result]}" for x in every[:8])


def _check_same(g: Canonical, dense: InferenceSession, data: Examples, threads: int | None, subject: str) -> None:
    """The graph that is worked on computes what the file does: on the first batch."""
    plain = InferenceSession(assembled(g), threads)
    for name, row in differences(dense, plain, data, most=1).items():
        if not (row["relative_l2"] or 0.0) <= _SAME:
            raise CheckError(
                f"{subject}: folding its norms and lifting its opset moved output {quoted(name)} by "
                f"{row['relative_l2']:.2g} of its norm; export it anew with opset 17"
            )


def _scale(grid: Grid, seen: Mapping[str, Any], observer: str, percentile: float) -> float:
    sample = np.concatenate([seen[v] for v in grid.values], axis=1)
    return scale_of(observer, sample, not grid.unsigned, percentile)


def _refused(model: bytes, chosen: Sequence[Layer]) -> dict[str, str]:
    """Chosen layers that the engine computes in float32 all the same (sums that may leave int32), with its word."""
    found = inspect(model)
    rows = [r for r in found["layers"] if r["op"] in ("Conv", "Gemm", "MatMul")]
    words = {r["name"]: r["why"] for r in rows if r["arithmetic"] == "float32"}
    return {x.result: words[x.node.name] for x in chosen if x.node.name in words}


def _layer_row(g: Canonical, layer: Layer, left: Mapping[str, str]) -> dict[str, Any]:
    weight = g.constants.get(layer.weight)
    return {
        "name": layer.name,
        "weight": layer.weight,
        "op": layer.node.op_type,
        "shape": None if weight is None else list(weight.shape),
        "arithmetic": "float32" if layer.result in left else "int8",
        "why": left.get(layer.result, ""),
    }


def _grid_row(grid: Grid, scale: float) -> dict[str, Any]:
    low, high = ENDS[not grid.unsigned]
    return {"values": list(grid.values), "scale": scale, "low": low, "high": high}


def _times(original: bytes, made: bytes, data: Examples, seconds: float | None) -> dict[str, float] | None:
    """Median milliseconds of one call in the engine, turns interleaved."""
    if seconds is None:
        return None
    some = {name: np.ascontiguousarray(a[:_TIMED]) for name, a in data.arrays.items()}
    timed = bench(made, (), batch=data.batch or 1, inputs=some, dense=original, seconds=seconds)["latency_ms"]
    return {"float32": timed["dense"]["engine"]["median"], "int8": timed["model"]["engine"]["median"]}
