"""Records as real runs write them, for the report's tests: a LeNet-5 and a deeper net."""

from __future__ import annotations

import math
from typing import Any

RECIPE = """\
model: secateur.zoo:lenet5
data: mnist
budget: {nbytes: 3KB, accuracy_drop: 0.3pt}
constrain:
  - {where: "*", with: [topk, codebook]}
solver: {name: gradual, epochs: 14}
saliency: {name: abs_v, power: 0.25}
objective: [{name: task}, {name: distillation, weight: 0.7}]
seed: 0
"""


def _latency(**runtimes: tuple[float, float, float]) -> dict[str, dict[str, float]]:
    return {r: {"median": m, "p10": a, "p90": b} for r, (m, a, b) in runtimes.items()}


def _metric(value: float, n: int = 10_000) -> dict[str, Any]:
    return {"name": "accuracy", "value": value, "n_examples": n}


def history(n: int = 120) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        t = i / (n - 1)
        stage = "dense" if t < 0.3 else "approach" if t < 0.7 else "polish"
        row: dict[str, Any] = {"stage": stage, "step": 50 * i, "lr": 2e-3 * (0.5 + 0.5 * math.cos(math.pi * t))}
        row["loss"] = 0.03 + 1.9 * math.exp(-9 * t) + (0.08 * math.sin(5 * math.pi * t) ** 2 if t > 0.3 else 0)
        if i % 8 == 7:
            row["metric"] = 0.9965 - 0.05 * math.exp(-10 * t) - (0.006 if 0.3 < t < 0.7 else 0.0035 * (t > 0.7))
        if t >= 0.3:
            row["sparsity"] = min(0.9961, 0.9961 * (1 - (1 - min(1, (t - 0.3) / 0.38)) ** 3))
        if 0.3 <= t < 0.7:
            row |= {"primal_residual": 12 * math.exp(-8 * (t - 0.3)), "dual_residual": 4 * math.exp(-6 * (t - 0.3))}
        rows.append(row)
    return rows


def lenet5() -> dict[str, Any]:
    """A finished run: LeNet-5 on MNIST."""
    layers = [
        ("conv1.weight", "conv", [20, 1, 5, 5], 187, 3.0, 152, 131.1, 110_000, 288_000, "conv_csr_3x_avx512"),
        ("conv2.weight", "conv", [50, 20, 5, 5], 700, 3.0, 812, 795.0, 44_800, 1_600_000, "conv_csr_3x_avx512"),
        ("fc1.weight", "linear", [500, 800], 702, 3.0, 1_121, 1_102.4, 702, 400_000, "linear_csr_avx512"),
        ("fc2.weight", "linear", [10, 500], 161, 3.0, 173, 166.0, 161, 5_000, "linear_csr_avx512"),
    ]
    return {
        "schema": 1,
        "model": "secateur.zoo:lenet5",
        "data": "mnist",
        "seed": 0,
        "date": "2026-11-21T05:02:11+00:00",
        "versions": {
            "secateur": "0.1.0",
            "torch": "2.13.0",
            "onnx": "1.21.0",
            "onnxruntime": "1.27.0",
            "numpy": "2.4.6",
        },
        "cpu": {"name": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "isa": "avx512", "threads": 1},
        "dense": {
            "metric": _metric(0.9965),
            "params": 431_080,
            "nnz": 430_500,
            "macs": 2_293_000,
            "nbytes": 1_725_800,
            "weight_bits": 13_776_000,
            "latency_ms": _latency(
                engine=(0.112, 0.110, 0.121),
                onnxruntime=(0.154, 0.149, 0.171),
                openvino=(0.163, 0.157, 0.181),
                torch=(0.61, 0.58, 0.74),
            ),
        },
        "one_shot_raw": {"metric": _metric(0.3127), "params": 2_300, "nnz": 1_750, "macs": 155_000, "nbytes": 2_611},
        "one_shot": {
            "metric": _metric(0.9816),
            "params": 2_300,
            "nnz": 1_750,
            "macs": 155_000,
            "nbytes": 2_598,
            "latency_ms": _latency(engine=(0.0139, 0.0136, 0.0151)),
        },
        "control": {"metric": _metric(0.9936), "params": 4_700, "nnz": 4_600, "macs": 610_000, "nbytes": 2_740},
        "compressed": {
            "metric": _metric(0.9921) | {"difference_std_error": 0.0007},
            "params": 2_320,
            "nnz": 1_750,
            "macs": 155_663,
            "nbytes": 2_617,
            "weight_bits": 5_250,
            "latency_ms": _latency(
                engine=(0.0141, 0.0137, 0.0156),
                onnxruntime=(0.098, 0.094, 0.113),
                openvino=(0.101, 0.097, 0.109),
                torch=(0.44, 0.41, 0.52),
            ),
        },
        "budget": [
            {"name": "nbytes", "asked": 3000, "reached": 2617, "met": True},
            {"name": "accuracy_drop", "asked": 0.003, "reached": 0.0026, "met": True},
        ],
        "layers": [
            {
                "name": name,
                "op": op,
                "shape": shape,
                "nnz": nnz,
                "bits": bits,
                "constraint": "both(topk, codebook)",
                "layout": "sorted_gaps",
                "codec": "context",
                "nbytes": size,
                "bound_nbytes": bound,
                "macs": macs,
                "macs_dense": dense,
                "kernel": kernel,
            }
            for name, op, shape, nnz, bits, size, bound, macs, dense, kernel in layers
        ],
        "terms": [
            {
                "site": name,
                "with": [{"name": "topk"}, {"name": "codebook"}],
                "level": [nnz, 8],
                "given": False,
                "n_cuts": 1,
                "place": {"op": op, "shape": shape, "members": [{"param": name}]},
            }
            for name, op, shape, nnz, *_ in layers
        ],
        "sections": [
            {"name": "header", "kind": "header", "nbytes": 34},
            {"name": "checksum", "kind": "checksum", "nbytes": 4},
            {"name": "graph", "kind": "graph", "nbytes": 187},
            *({"name": name, "kind": "tensor", "nbytes": size} for name, *_, size, _, _, _, _ in layers),
            {"name": "conv1.bias", "kind": "tensor", "nbytes": 17},
            {"name": "conv2.bias", "kind": "tensor", "nbytes": 38},
            {"name": "fc1.bias", "kind": "tensor", "nbytes": 64},
            {"name": "fc2.bias", "kind": "tensor", "nbytes": 15},
        ],
        "verify": {
            "max_abs_error": 3.1e-6,
            "tolerance": 4.4e-5,
            "metric_engine": 0.9921,
            "metric_torch": 0.9921,
            "metric_onnxruntime": 0.9921,
        },
        "stages": [
            {"name": "dense", "seconds": 131.2, "epochs": 8},
            {"name": "one_shot", "seconds": 61.0},
            {"name": "approach", "seconds": 402.5, "epochs": 10, "levels": {"fc1.weight": 702}},
            {"name": "polish", "seconds": 160.1, "epochs": 4},
            {"name": "export", "seconds": 3.4},
            {"name": "bench", "seconds": 21.0},
        ],
        "history": history(),
        "frontier": [
            {"nbytes": 1900, "accuracy_drop": 0.0068},
            {"nbytes": 2617, "accuracy_drop": 0.0026},
            {"nbytes": 3400, "accuracy_drop": 0.0019},
        ],
        "recipe": RECIPE,
    }


def deep(n_layers: int = 54) -> dict[str, Any]:
    """A run over a net of many layers, without baselines, curves or sections, and a budget that is not met."""
    record = lenet5()
    for key in ("one_shot", "one_shot_raw", "control", "sections", "history", "recipe", "date", "frontier"):
        record.pop(key)
    record["one_shot"] = None
    record["model"] = "secateur.zoo:resnet56"
    record["layers"] = [
        {
            "name": f"layer{1 + i * 3 // n_layers}.{i}.conv{1 + i % 2}.weight",
            "op": "conv",
            "shape": [16 << (i * 3 // n_layers), 16 << (i * 3 // n_layers), 3, 3],
            "nnz": int((16 << (i * 3 // n_layers)) ** 2 * 9 * (0.08 + 0.5 * math.exp(-i / 9))),
            "bits": 4 if i % 5 else 8,
            "constraint": "topk" if i else None,
            "layout": "bitmap",
            "codec": "uniform",
            "nbytes": 300 + 40 * i,
            "macs": 100_000 + 1_000 * i,
        }
        for i in range(n_layers)
    ]
    record["compressed"] |= {"nbytes": 91_000, "latency_ms": {}}
    record["budget"][0] |= {"asked": 80_000, "reached": 91_000, "met": False}
    return record


def minimal() -> dict[str, Any]:
    """Only what schema 1 requires, nothing measured."""
    return {
        "schema": 1,
        "model": "m",
        "data": "d",
        "seed": 0,
        "versions": {},
        "cpu": {},
        "dense": {},
        "one_shot": None,
        "compressed": {},
        "budget": [],
        "layers": [],
        "verify": {},
        "stages": [],
    }
