"""Time single float32 operators in the engine and in ONNX Runtime: interleaved, checked, one thread.

    python benchmarks/speed/operators.py --out benchmarks/results/speed-operators-zen3.json
    python benchmarks/speed/operators.py --only pool tanh --seconds 0.3

Every net is one operator, and one more is a tiny net whose time is that of handing it over. A ratio is ONNX Runtime's
time by ours, taken per round of turns, so that a busy machine disturbs both sides; below 1 the engine is slower.
Time is a call's: arrays of NumPy in and out. `kernel_us` is that of the step alone, as `explain` measures it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import run
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.engine.bench import N_INPUTS, bench
from secateur.errors import HandedOverWarning

PEER = "onnxruntime"
GOAL = 0.9  # of ONNX Runtime's time
INPUT_BYTES = 1 << 28  # of all inputs in rotation: large maps need fewer to be new to the caches


@dataclass(frozen=True)
class Operator:
    """One node on an input without its batch axis; `weights` are the shapes of its constant float inputs."""

    name: str
    op: str
    shape: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    weights: tuple[tuple[int, ...], ...] = ()
    scales: tuple[float, ...] = ()  # of a Resize


def max_pool(name: str, shape: tuple[int, ...], kernel: int, stride: int, pad: int) -> Operator:
    """A square window."""
    return Operator(name, "MaxPool", shape, _window(kernel, stride, pad))


def average_pool(name: str, shape: tuple[int, ...], kernel: int, stride: int, pad: int) -> Operator:
    """A square window whose padding counts, as torch's does."""
    return Operator(name, "AveragePool", shape, _window(kernel, stride, pad) | {"count_include_pad": 1})


def depthwise(channels: int, size: int, kernel: int, stride: int) -> Operator:
    """A kernel of its own for every channel, and a bias."""
    name = f"depthwise {kernel}x{kernel} / {stride}, {channels}@{size}"
    attrs = _window(kernel, stride, kernel // 2) | {"group": channels}
    return Operator(name, "Conv", (channels, size, size), attrs, ((channels, 1, kernel, kernel), (channels,)))


def transposed(name: str, shape: tuple[int, ...], outputs: int, kernel: int, stride: int, pad: int) -> Operator:
    """ConvTranspose with a bias."""
    weights = ((shape[0], outputs, kernel, kernel), (outputs,))
    return Operator(name, "ConvTranspose", shape, _window(kernel, stride, pad), weights)


def resize(name: str, shape: tuple[int, ...], mode: str, grid: str) -> Operator:
    """Twice as large in both directions."""
    attrs = {"mode": mode, "coordinate_transformation_mode": grid}
    if mode == "nearest":
        attrs["nearest_mode"] = "floor"
    return Operator(name, "Resize", shape, attrs, scales=(1, 1, 2, 2))


def _window(kernel: int, stride: int, pad: int) -> dict[str, Any]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}


LARGE = (64, 360, 640)
OPERATORS = (
    *(max_pool(f"max pool {k}x{k} / 1, 256@20", (256, 20, 20), k, 1, k // 2) for k in (5, 9, 13)),
    *(max_pool(f"max pool {k}x{k} / 1, 512@13", (512, 13, 13), k, 1, k // 2) for k in (5, 9, 13)),
    max_pool("max pool 2x2 / 2, 32@256x448", (32, 256, 448), 2, 2, 0),
    max_pool("max pool 3x3 / 2, 64@112", (64, 112, 112), 3, 2, 1),
    average_pool("average pool 2x2 / 2, 64@112", (64, 112, 112), 2, 2, 0),
    average_pool("average pool 3x3 / 1, 192@28", (192, 28, 28), 3, 1, 1),
    average_pool("average pool 3x3 / 2, 64@112", (64, 112, 112), 3, 2, 1),
    Operator("global average pool, 1280@7", "GlobalAveragePool", (1280, 7, 7)),
    depthwise(64, 80, 3, 1),
    depthwise(64, 80, 3, 2),
    depthwise(96, 112, 3, 2),
    depthwise(144, 56, 3, 1),
    depthwise(144, 56, 3, 2),
    depthwise(384, 14, 3, 1),
    depthwise(960, 7, 3, 1),
    depthwise(120, 28, 5, 1),
    depthwise(72, 56, 5, 2),
    Operator("softmax 128x128x128", "Softmax", (128, 128, 128), {"axis": -1}),
    Operator("softmax of channels, 21@128", "Softmax", (21, 128, 128), {"axis": 1}),
    Operator("tanh 64x360x640", "Tanh", LARGE),
    Operator("sigmoid 64x360x640", "Sigmoid", LARGE),
    Operator("erf 64x360x640", "Erf", LARGE),
    Operator("gelu 64x360x640", "Gelu", LARGE),
    Operator("tanh 64x56x56", "Tanh", (64, 56, 56)),
    Operator("sigmoid 64x56x56", "Sigmoid", (64, 56, 56)),
    Operator("gelu 128x3072", "Gelu", (128, 3072)),
    resize("resize x2 nearest, 64@80", (64, 80, 80), "nearest", "asymmetric"),
    resize("resize x2 nearest, 128@20", (128, 20, 20), "nearest", "asymmetric"),
    resize("resize x2 linear, 64@80", (64, 80, 80), "linear", "half_pixel"),
    resize("resize x2 linear, 19@128", (19, 128, 128), "linear", "align_corners"),
    transposed("transposed 2x2 / 2, 24->24@160", (24, 160, 160), 24, 2, 2, 0),
    transposed("transposed 2x2 / 2, 128->64@32", (128, 32, 32), 64, 2, 2, 0),
    transposed("transposed 4x4 / 2, 32->32@64", (32, 64, 64), 32, 4, 2, 1),
    transposed("transposed 4x4 / 2, 256->128@14", (256, 14, 14), 128, 4, 2, 1),
)


def file_of(operator: Operator) -> bytes:
    """The operator as a whole ONNX file, batch 1."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(s).astype(np.float32) / math.sqrt(max(1, math.prod(s[1:]))) for s in operator.weights]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(drawn)]
    inputs = ["x", *(c.name for c in constants)]
    if operator.scales:
        constants = [numpy_helper.from_array(np.array(operator.scales, np.float32), "scales")]
        inputs = ["x", "", "scales"]
    return _file([helper.make_node(operator.op, inputs, ["y"], **operator.attrs)], operator.shape, constants)


def tiny() -> bytes:
    """Two linear layers of 16 with a Relu: all but nothing to compute."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((16, 16)).astype(np.float32), f"w{i}") for i in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    return _file(nodes, (16,), weights)


def handed_over() -> bytes:
    """The same shapes in a node that the engine leaves to ONNX Runtime: what it takes to hand a whole net over."""
    return _file([helper.make_node("LpNormalization", ["x"], ["y"], p=2)], (16,), [])


def _file(nodes: Sequence[Any], shape: Sequence[int], constants: Sequence[Any]) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "operator", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def total(steps: Sequence[dict[str, Any]], key: str) -> float | None:
    """Of all steps; None where one does not say."""
    values = [s[key] for s in steps]
    return None if None in values else float(sum(values))


def row(name: str, file: bytes, shape: Sequence[int], seconds: float) -> dict[str, Any]:
    """One operator in both runtimes."""
    count = max(3, min(N_INPUTS, INPUT_BYTES // (4 * math.prod(shape))))
    inputs = np.random.default_rng(1).standard_normal((count, *shape), dtype=np.float32)
    result = bench(file, against=(PEER,), seconds=seconds, inputs=inputs)
    ms = result["latency_ms"]["model"]
    ratio = next((r for r in result["ratios"] if r["of"][0] == PEER), None)
    steps = InferenceSession(file, threads=1).explain(repeats=11)
    return {
        "name": name,
        "us": {runtime: 1e3 * t["median"] for runtime, t in ms.items()},
        "kernel_us": total(steps, "time_us"),
        "predicted_us": total(steps, "predicted_us"),
        "ratio": {k: ratio[k] for k in ("median", "p10", "p90")} if ratio else None,
        "agree": all(c["agree"] for c in result["checks"]),
        **{k: result[k] for k in ("checks", "kernels", "skipped", "cpu", "isa", "threads", "n_inputs")},
    }


def show(r: dict[str, Any]) -> str:
    """One line of the table."""
    us, ratio = r["us"], r["ratio"]
    gain = f"{ratio['median']:6.2f} ({ratio['p10']:.2f}-{ratio['p90']:.2f})" if ratio else "-"
    theirs = f"{us[PEER]:10.1f}" if PEER in us else f"{'-':>10}"
    verdict = "" if r["agree"] else "DIFFERS"
    below = "below" if ratio and ratio["median"] < GOAL else ""
    own = f"{'-':>10}" if r["kernel_us"] is None else f"{r['kernel_us']:10.1f}"
    return f"{r['name']:<34} {us['engine']:10.1f} {own} {theirs} {gain:<20} {below} {verdict}".rstrip()


def main() -> int:
    """Parse, measure, print, write; exit 1 when the runtimes disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--seconds", type=float, default=0.5, help="per runtime and operator")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    warnings.simplefilter("ignore", HandedOverWarning)
    files = [(o.name, file_of(o), o.shape) for o in OPERATORS]
    files += [("call of a tiny net", tiny(), (16,)), ("call of a tiny net, handed over", handed_over(), (16,))]
    print(f"{'operator':<34} {'call us':>10} {'kernel us':>10} {PEER:>10} theirs / ours")
    rows = []
    for name, file, shape in files:
        if any(part in name for part in args.only):
            rows.append(row(name, file, shape, args.seconds))
            print(show(rows[-1]), flush=True)
    ratios = [r["ratio"]["median"] for r in rows if r["ratio"]]
    if ratios:
        print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} of {len(ratios)}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"provenance": run.provenance(), "rows": rows}, indent=1) + "\n")
    return 0 if all(r["agree"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
