"""Linear layers in int8 with 1x4 blocks of zeros: the engine beside the block-sparse kernel inside PyTorch.

    python benchmarks/speed/qlinear.py --out benchmarks/results/speed-qlinear.json

PyTorch's `torch.ops.sparse.qlinear` (FBGEMM) multiplies bytes with int8 weights of which blocks of four inputs are
zero. Both sides get the same bytes and give back bytes; one thread, 32 inputs in rotation, turns of both interleaved.
The codes of both are compared with exact sums in the same run. FBGEMM adds pairs of products in 16 bits, where full
codes overflow: timed are weights of 7 bits, with which it is right; what it makes of 8 bits is counted beside it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.shell import saving

SHAPES = {  # inputs, outputs
    "bert 768-768": (768, 768),
    "bert 768-3072": (768, 3072),
    "bert 3072-768": (3072, 768),
    "lenet300 784-300": (784, 300),
    "lenet300 300-100": (300, 100),
}
ROWS, DENSITIES, N_INPUTS = (1, 16, 128), (0.1, 0.2), 32
TURN = 0.02  # seconds
SCALE_IN, SCALE_OUT = 1 / 255, 0.05

Call = Callable[[int], Any]  # number of an input -> result


def weights(n_in: int, n_out: int, density: float, top: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 [n_out, n_in] up to `top` of which whole blocks of four inputs are zero, and a scale per output."""
    rng = np.random.default_rng(0)
    kept = np.repeat(rng.random((n_out, n_in // 4)) < density, 4, axis=1)
    codes = np.where(kept, rng.integers(-top, top + 1, (n_out, n_in)), 0).astype(np.int8)
    return codes, rng.uniform(0.5, 1.5, n_out) / top / np.sqrt(density * n_in)


def file(codes: np.ndarray, scales: np.ndarray, rows: int) -> bytes:
    """Bytes in, one linear layer, bytes out, as QDQ."""
    n_out, n_in = codes.shape
    held = {
        "sx": np.float32(SCALE_IN),
        "zx": np.uint8(0),
        "w": codes,
        "sw": scales.astype(np.float32),
        "sy": np.float32(SCALE_OUT),
        "zy": np.int8(0),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["b"], axis=0),
        helper.make_node("Gemm", ["a", "b"], ["c"], transB=1),
        helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, n_in])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [rows, n_out])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def sides(codes: np.ndarray, scales: np.ndarray, x: np.ndarray) -> dict[str, Call]:
    """The engine's call and PyTorch's; x: uint8 [inputs, rows, n_in]."""
    session = InferenceSession(file(codes, scales, x.shape[1]), threads=1)
    zero = torch.zeros(len(codes), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these tensors are deprecated; the kernel has no other door
        weight = torch._make_per_channel_quantized_tensor(torch.from_numpy(codes), torch.from_numpy(scales), zero, 0)
        packed = torch.ops.sparse.qlinear_prepack(weight, torch.zeros(len(codes)), 1, 4)
        given = [torch._make_per_tensor_quantized_tensor(torch.from_numpy(a), SCALE_IN, 0) for a in x]
    return {
        "engine": lambda i: session.run(None, {"x": x[i]})[0],
        "torch": lambda i: torch.ops.sparse.qlinear(given[i], packed, SCALE_OUT, 128),
    }


def wrong(codes: np.ndarray, scales: np.ndarray, x: np.ndarray, calls: dict[str, Call]) -> dict[str, float]:
    """Share of each side's codes that are further than one from the exact sums'."""
    sums = x.astype(np.float64) @ codes.T.astype(np.float64)  # exact: far below 2^53
    exact = np.clip(np.rint(sums * SCALE_IN * scales / SCALE_OUT), -128, 127)
    found = {
        "engine": np.stack([calls["engine"](i) for i in range(len(x))]).astype(np.int64),
        "torch": np.stack([calls["torch"](i).int_repr().numpy() for i in range(len(x))]).astype(np.int64) - 128,
    }
    return {side: float((np.abs(y - exact) > 1).mean()) for side, y in found.items()}


def measured(name: str, rows: int, density: float, seconds: float) -> dict[str, Any]:
    """Medians in us of both sides, their ratio, and the share of wrong codes with weights of 7 and of 8 bits."""
    x = np.random.default_rng(1).integers(0, 256, (N_INPUTS, rows, SHAPES[name][0])).astype(np.uint8)
    made = {bits: weights(*SHAPES[name], density, top) for bits, top in ((8, 127), (7, 63))}
    errors = {bits: wrong(*w, x, sides(*w, x)) for bits, w in made.items()}
    calls = sides(*made[7], x)
    times: dict[str, list[float]] = {side: [] for side in calls}
    rng, end = np.random.default_rng(2), time.perf_counter() + 2 * seconds
    while time.perf_counter() < end:
        for side in rng.permutation(list(calls)):
            times[side].append(_turn(calls[side]))
    ratios = np.array(times["torch"]) / np.array(times["engine"])
    return {
        **{"layer": name, "rows": rows, "density": density},
        "us": {side: float(np.median(t)) for side, t in times.items()},
        "ratio": dict(zip(("p10", "median", "p90"), map(float, np.percentile(ratios, [10, 50, 90])), strict=True)),
        "wrong": {f"{bits} bits": e for bits, e in errors.items()},
    }


def _turn(call: Call) -> float:
    """Median us of a call, the first three not counted."""
    found: list[float] = []
    end = time.perf_counter() + TURN
    while time.perf_counter() < end or len(found) < 8:
        start = time.perf_counter()
        call(len(found) % N_INPUTS)
        found.append(1e6 * (time.perf_counter() - start))
    return float(np.median(found[3:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.4, help="per side and layer")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "fbgemm"
    found = []
    for name in SHAPES:
        for rows in ROWS:
            for density in DENSITIES:
                r = measured(name, rows, density, args.seconds)
                found.append(r)
                us, ratio = r["us"], r["ratio"]
                print(
                    f"{name:18s} rows {rows:3d} density {density:.1f}: engine {us['engine']:8.1f} us, torch "
                    f"{us['torch']:8.1f} us: {ratio['median']:5.2f}x ({ratio['p10']:.2f}-{ratio['p90']:.2f}); torch's "
                    f"codes wrong with weights of 8 bits: {r['wrong']['8 bits']['torch']:.1%}",
                    flush=True,
                )
    if args.out:
        saving.write_bytes(args.out, (json.dumps({**run.provenance(), "rows": found}, indent=1) + "\n").encode())
    exact = all(r["wrong"]["7 bits"] == {"engine": 0, "torch": 0} and not r["wrong"]["8 bits"]["engine"] for r in found)
    return 0 if exact else 1


if __name__ == "__main__":
    raise SystemExit(main())
