"""Int8 files: static QDQ by ONNX Runtime, u8 activations, s8 weights per channel; and when two runtimes agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from secateur.engine import InferenceSession, isas
from secateur.engine.bench import bench
from secateur.engine.oracle import oracle
from secateur.engine.quantized import static_int8
from secateur.shell import runtimes


def _examples(model: bytes, n: int, seed: int) -> list[NDArray[np.float32]]:
    shape = [d.dim_value or 1 for d in onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(n)]


def quantized(model: bytes) -> bytes:
    """The net quantized with ranges of four standard normal inputs."""
    return static_int8(model, [{"x": x} for x in _examples(model, 4, 1)])


def _run_at(isa: str, model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    before = os.environ.get("SECATEUR_ISA")
    os.environ["SECATEUR_ISA"] = isa
    try:
        return InferenceSession(model, threads=1).run(None, {"x": x})[0]
    finally:
        del os.environ["SECATEUR_ISA"]
        if before is not None:
            os.environ["SECATEUR_ISA"] = before


def check(fp32: bytes, quantized: bytes) -> dict[str, Any]:
    """The engine's int8 result is as near to the float32 net as ONNX Runtime's int8 result is, and near to it.

    Rounding differs by a step here and there and every layer passes that on, so no bound per element is meant: errors
    are Euclidean norms over eight inputs, relative to the float32 result. Agree: engine <= 1.1 ONNX Runtime + 0.01.
    ONNX Runtime's int8 products saturate on CPUs without VNNI: `oracle` says who computed `engine_from_oracle`'s other
    side. Nets of integer layers only have the same bits at every ISA; the float32 parts of a Transformer do not.
    """
    x = _examples(fp32, 8, 2)
    sessions = [
        runtimes.onnxruntime().InferenceSession(m, providers=["CPUExecutionProvider"]) for m in (fp32, quantized)
    ]
    exact, theirs = (np.stack([s.run(None, {"x": a})[0] for a in x]).astype(np.float64) for s in sessions)
    ours = np.stack([InferenceSession(quantized, threads=1).run(None, {"x": a})[0] for a in x]).astype(np.float64)
    size = float(np.linalg.norm(exact))
    errors = [float(np.linalg.norm(y - exact)) / size for y in (ours, theirs)]
    apart = float(np.linalg.norm(ours - theirs)) / size
    judge = oracle(quantized)
    truth = None if judge is None else np.asarray(judge.call({"x": x[0]})[0], np.float64)
    elsewhere = {isa: _run_at(isa, quantized, x[0]) for isa in isas() if isa != "ref"}  # plain loops take minutes
    return {
        "engine_error": errors[0],
        "onnxruntime_error": errors[1],
        "apart": apart,
        "oracle": None if judge is None else judge.name,
        "engine_from_oracle": None if truth is None else float(np.linalg.norm(ours[0] - truth) / np.linalg.norm(truth)),
        "same_bits_at": [isa for isa, y in elsewhere.items() if np.array_equal(y, ours[0])],
        "agree": errors[0] <= 1.1 * errors[1] + 0.01,
    }


def row(
    name: str,
    pruned: bytes,
    dense: bytes,
    density: float,
    seconds: float,
    repeats: int,
    peers: tuple[str, ...],
    clock: Callable[[], float],
) -> dict[str, Any]:
    """The pruned file in int8 against the dense net in int8 and in float32, each in a run of its own."""
    sparse8, dense8 = quantized(pruned), quantized(dense)
    results = {"int8": bench(sparse8, against=peers, dense=dense8, seconds=seconds, clock=clock)}
    results["fp32"] = bench(sparse8, against=peers, dense=dense, seconds=seconds, clock=clock)
    out: dict[str, Any] = {"name": name, "density": density, "us": {}, "faster_than_best_dense_peer": {}}
    for kind, result in results.items():
        ms = {rt: t["median"] for rt, t in result["latency_ms"]["dense"].items()}
        best = min((rt for rt in ms if rt != "engine"), key=lambda rt: ms[rt], default=None)
        ratios = {tuple(r["of"]): {k: r[k] for k in ("median", "p10", "p90")} for r in result["ratios"]}
        out["us"][f"dense_{kind}"] = {rt: 1e3 * t / repeats for rt, t in ms.items()}
        out["faster_than_best_dense_peer"][kind] = {"peer": best, **ratios[best, "dense"]} if best else None
        if kind == "int8":
            model = {rt: t["median"] for rt, t in result["latency_ms"]["model"].items()}
            out["us"]["sparse_int8"] = {rt: 1e3 * t / repeats for rt, t in model.items()}
            out["faster_than_own_dense"] = ratios["engine", "dense"]
            own = ms["onnxruntime"] / ms["engine"] if "onnxruntime" in ms else None
            out["own_dense_against_onnxruntime"] = own
    checks = [check(pruned, sparse8), check(dense, dense8)]
    first = results["int8"]
    out |= {"checks": checks, "agree": all(c["agree"] for c in checks)}
    return out | {k: first[k] for k in ("kernels", "skipped", "cpu", "isa", "threads", "clock")}


def show(r: dict[str, Any]) -> str:
    """One line of the table."""
    us, gain = r["us"], r["faster_than_best_dense_peer"]
    parts = [f"{r['name']:<24} {100 * r['density']:5.1f}", f"{us['sparse_int8']['engine']:9.1f}"]
    parts.append(f"{us['dense_int8']['engine']:9.1f}")
    for kind in ("int8", "fp32"):
        if gain[kind] is None:
            parts.append(f"{'-':>34}")
            continue
        peer, g = gain[kind]["peer"], gain[kind]
        parts.append(f"{us[f'dense_{kind}'][peer]:9.1f} {peer:<11}{g['median']:5.2f}x ({g['p10']:.2f}-{g['p90']:.2f})")
    own = r["own_dense_against_onnxruntime"]
    return " ".join([*parts, f"{own:.2f}x" if own else "-", "ok" if r["agree"] else "DIFFERS"])
