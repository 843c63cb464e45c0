"""Int8 from a float32 ONNX file and calibration data: no torch, no training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from secateur.constraints._observers import ENDS, OBSERVERS, PERCENTILE, scale_of
from secateur.engine import InferenceSession, bench, inspect
from secateur.errors import HandedOverWarning, UsageError
from secateur.export._canonical import Canonical
from secateur.limits import quoted
from secateur.post_training import table
from secateur.post_training.calibration import Examples, Given
from secateur.post_training.differences import differences
from secateur.post_training.opening import Opened, opened
from secateur.post_training.places import Grid, Layer, grids
from secateur.post_training.ranges import Report, samples
from secateur.post_training.writing import written
from secateur.shell import saving
from secateur.shell.showing import Shown

_TIMED = 64  # examples in rotation


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
        FormatError, UnsupportedError: as `InferenceSession`; and graphs with branches, of other domains, or that ONNX's
            converter changes.
        ConstraintError: NaN or infinity inside the network.
    Reference: Jacob et al., CVPR 2018, arXiv:1712.05877; Krishnamoorthi, arXiv:1806.08342, sec. 3 (after training).
    """
    check_observer(observer, percentile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        net = opened(path_or_bytes, calib, keep, threads)
        made = integers(net, net.graph, observer, percentile, on_progress)
        outputs = differences(net.dense, InferenceSession(made.model, threads), net.data, on_progress)
    report = {
        "layers": layer_rows(net, made.left),
        "activations": [_grid_row(p, s) for p, s in zip(made.places, made.scales, strict=True)],
        "outputs": outputs,
        "n_examples": net.data.n,
        "observer": observer,
        "nbytes": {"float32": len(net.original), "int8": len(made.model)},
        "latency_ms": _times(net.original, made.model, net.data, bench_seconds),
    }
    return Quantized(made.model, Shown(report, table.show))


def check_observer(observer: str, percentile: float) -> None:
    """UsageError where it is none."""
    if observer not in OBSERVERS:
        raise UsageError(f"observer: got {quoted(observer)}; {', '.join(OBSERVERS)} are possible")
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile: got {percentile:g}; above 50 and at most 100 is needed")


@dataclass(frozen=True)
class Integers:
    """A written int8 form: its grids with their scales, and why a layer (by its result) is not in it."""

    model: bytes
    places: tuple[Grid, ...]
    scales: list[float]
    left: dict[str, str]


def integers(net: Opened, g: Canonical, observer: str, percentile: float, report: Report) -> Integers:
    """The int8 form of `g`, which is `net`'s graph with other values of its weights or the same.

    Raises:
        UsageError: no layer can run in integers.
    """
    left, seen = dict(net.left), dict[str, Any]()
    while True:
        chosen = [x for x in net.layers if x.result not in left]
        if not chosen:
            raise UsageError(f"{net.subject}: no layer to quantize: {_reasons(net.layers, left)}")
        places = grids(g, chosen)
        values = [v for p in places for v in p.values if v not in seen]
        seen |= samples(g, values, net.data, net.threads, report) if values else {}
        scales = [_scale(p, seen, observer, percentile) for p in places]
        made = written(g, chosen, places, scales)
        refused = _refused(made, chosen)
        if not refused:
            break
        left |= refused
    onnx.checker.check_model(onnx.load_model_from_string(made), full_check=True)
    return Integers(made, places, scales, left)


def _reasons(every: Sequence[Layer], left: Mapping[str, str]) -> str:
    if not every:
        return "it has no Conv, Gemm or MatMul with constant weights"
    return "; ".join(f"{quoted(x.name)}: {left[x.result]}" for x in every[:8])


def _scale(grid: Grid, seen: Mapping[str, Any], observer: str, percentile: float) -> float:
    sample = np.concatenate([seen[v] for v in grid.values], axis=1)
    return scale_of(observer, sample, not grid.unsigned, percentile)


def _refused(model: bytes, chosen: Sequence[Layer]) -> dict[str, str]:
    """Chosen layers that the engine computes in float32 all the same (sums that may leave int32), with its word."""
    found = inspect(model)
    rows = [r for r in found["layers"] if r["op"] in ("Conv", "Gemm", "MatMul")]
    words = {r["name"]: r["why"] for r in rows if r["arithmetic"] == "float32"}
    return {x.result: words[x.node.name] for x in chosen if x.node.name in words}


def layer_rows(net: Opened, left: Mapping[str, str]) -> list[dict[str, Any]]:
    """What reports say of every layer; `left`: why a layer, by its result, is float32."""
    return [
        {
            "name": x.name,
            "weight": x.weight,
            "op": x.node.op_type,
            "shape": list(net.graph.constants[x.weight].shape) if x.weight in net.graph.constants else None,
            "arithmetic": "float32" if x.result in left else "int8",
            "why": left.get(x.result, ""),
        }
        for x in net.layers
    ]


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
