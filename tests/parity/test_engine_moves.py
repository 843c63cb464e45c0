"""Quantized constants that something moves between their DequantizeLinear and the layer: it stays one of integers.

Every form computes what the plain one does, to the last bit and on every ISA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from secateur.engine import InferenceSession

from .quant_graphs import F, Net, on_every_isa

IN, OUT = 24, 20


def linear(
    move: Callable[[Net, np.ndarray, bool], str], per_channel: bool, gemm: bool = False
) -> tuple[bytes, np.ndarray]:
    """x -> quantize -> product with what `move` makes of w [OUT, IN] -> float32, and its exact result for one input."""
    net = Net(31)
    grid = net.grid()
    w = net.rng.integers(-127, 128, (OUT, IN))
    wd = move(net, w, per_channel)
    xd = net.dequantize(net.quantize("x", *grid), *grid)
    y = net.node("Gemm", xd, wd, transB=1) if gemm else net.node("MatMul", xd, wd)
    model = net.model({"x": [3, IN]}, {y: TensorProto.FLOAT})
    return model, w


def dequantized(net: Net, w: np.ndarray, per_channel: bool, axis: int, zero_dtype: Any = np.int8) -> str:
    """DequantizeLinear of w, whose `axis` holds the outputs."""
    scale = np.linspace(0.001, 0.009, OUT, dtype=F) if per_channel else F(0.004)
    zero = np.zeros(scale.shape, zero_dtype)
    return net.node(
        "DequantizeLinear", net.const(w, np.int8), net.const(scale, F), net.const(zero, zero_dtype), axis=axis
    )


def ints(net: Net, *values: int) -> str:
    return net.const(values, np.int64)


def transposed(net: Net, w: np.ndarray, per_channel: bool) -> str:
    return net.node("Transpose", dequantized(net, w, per_channel, 0), perm=[1, 0])


def transposed_by_default(net: Net, w: np.ndarray, per_channel: bool) -> str:
    return net.node("Transpose", dequantized(net, w, per_channel, 0))


def reshaped(net: Net, w: np.ndarray, per_channel: bool) -> str:
    d = dequantized(net, w.T.reshape(4, IN // 4, OUT), per_channel, 2)
    return net.node("Reshape", d, ints(net, -1, OUT))


def flattened(net: Net, w: np.ndarray, per_channel: bool) -> str:
    d = dequantized(net, w.T.reshape(4, IN // 4, OUT), per_channel, 2)
    return net.node("Flatten", d, axis=2)


def squeezed(net: Net, w: np.ndarray, per_channel: bool) -> str:
    return net.node("Squeeze", dequantized(net, w.T[:, None], per_channel, -1), ints(net, 1))


def unsqueezed(net: Net, w: np.ndarray, per_channel: bool) -> str:
    up = net.node("Unsqueeze", dequantized(net, w, per_channel, 0), ints(net, 0))
    return net.node("Squeeze", net.node("Transpose", up, perm=[0, 2, 1]), ints(net, 0))


def identical(net: Net, w: np.ndarray, per_channel: bool) -> str:
    return net.node("Identity", net.node("Cast", dequantized(net, w.T, per_channel, 1), to=TensorProto.FLOAT))


def sliced(net: Net, w: np.ndarray, per_channel: bool) -> str:
    wide = np.concatenate([w.T, w.T * 0 + 1])
    return net.node("Slice", dequantized(net, wide, per_channel, 1), ints(net, 0), ints(net, IN), ints(net, 0))


def split(net: Net, w: np.ndarray, per_channel: bool) -> str:
    wide = np.concatenate([w.T, w.T * 0 + 1])
    d = dequantized(net, wide, per_channel, 1)
    names = [net.name(), net.name()]
    net.nodes.append(helper.make_node("Split", [d, ints(net, IN, IN)], names, axis=0))
    return names[0]


def moved_before(net: Net, w: np.ndarray, per_channel: bool) -> str:
    """Integers that are moved themselves."""
    scale = np.linspace(0.001, 0.009, OUT, dtype=F) if per_channel else F(0.004)
    q = net.node("Transpose", net.const(w, np.int8))
    return net.node("DequantizeLinear", q, net.const(scale, F), net.const(np.zeros(scale.shape), np.int8), axis=1)


def fake_quantized(net: Net, w: np.ndarray, per_channel: bool) -> str:
    """QuantizeLinear and DequantizeLinear of a float32 weight, then a Transpose: training with quantization."""
    scale = np.linspace(0.001, 0.009, OUT, dtype=F) if per_channel else F(0.004)
    real = (w * (scale[:, None] if per_channel else scale)).astype(F)
    constants = net.const(scale, F), net.const(np.zeros(scale.shape), np.int8)
    q = net.node("QuantizeLinear", net.const(real, F), *constants, axis=0)
    return net.node("Transpose", net.node("DequantizeLinear", q, *constants, axis=0))


MOVES = [
    transposed, transposed_by_default, reshaped, flattened, squeezed, unsqueezed, identical, sliced, split,
    moved_before, fake_quantized,
]  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("move", MOVES)
def test_a_moved_weight_keeps_its_layer(monkeypatch: pytest.MonkeyPatch, move: Any, per_channel: bool) -> None:
    plain, _ = linear(lambda net, w, by: dequantized(net, w.T, by, 1), per_channel)
    moved, _ = linear(move, per_channel)
    x = {"x": np.random.default_rng(0).standard_normal((3, IN)).astype(F)}
    (want,) = InferenceSession(plain, threads=1).run(None, x)
    (got,) = on_every_isa(monkeypatch, moved, x)
    np.testing.assert_array_equal(got, want)
    monkeypatch.delenv("SECATEUR_ISA")
    rows = InferenceSession(moved, threads=1).explain(repeats=0)
    assert any(r["kernel"].startswith("qconv_") for r in rows), rows


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_gemm_with_a_transposed_weight(per_channel: bool) -> None:
    plain, _ = linear(lambda net, w, by: dequantized(net, w.T, by, 1), per_channel)
    moved, _ = linear(lambda net, w, by: net.node("Transpose", dequantized(net, w.T, by, 1)), per_channel, gemm=True)
    x = {"x": np.random.default_rng(0).standard_normal((3, IN)).astype(F)}
    session = InferenceSession(moved, threads=1)
    np.testing.assert_array_equal(session.run(None, x)[0], InferenceSession(plain, threads=1).run(None, x)[0])
    assert any(r["kernel"].startswith("qconv_") for r in session.explain(repeats=0))


@pytest.mark.parametrize("per_channel", [False, True])
def test_views_of_convolutions(monkeypatch: pytest.MonkeyPatch, per_channel: bool) -> None:
    """Weights [groups, outputs, ...] that become [outputs, ...], and an int32 bias with an axis too many."""
    net = Net(32)
    grid = net.grid()
    w = net.rng.integers(-127, 128, (6, 4, 3, 3))
    scale = np.linspace(0.002, 0.006, 6, dtype=F) if per_channel else np.full(6, 0.004, F)
    own = scale if per_channel else scale[0]
    zero = net.const(np.zeros(own.shape), np.int8)
    w5 = net.node("DequantizeLinear", net.const(w[None], np.int8), net.const(own, F), zero, axis=1)
    wd = net.node("Reshape", w5, ints(net, 6, 4, 3, 3))
    bias, steps = net.rng.integers(-500, 500, 6), (grid[0] * scale).astype(F)
    b = net.node(
        "DequantizeLinear",
        net.const(bias[None], np.int32),
        net.const(steps, F),
        net.const(np.zeros(6), np.int32),
        axis=1,
    )
    y_grid = net.grid()
    conv = net.node(
        "Conv", net.dequantize(net.quantize("x", *grid), *grid), wd, net.node("Squeeze", b, ints(net, 0)), pads=[1] * 4
    )
    model = net.model({"x": [1, 4, 7, 7]}, {net.quantize(conv, *y_grid): net.qtype})
    on_every_isa(monkeypatch, model, {"x": net.rng.standard_normal((1, 4, 7, 7)).astype(F)})
    monkeypatch.delenv("SECATEUR_ISA")
    rows = InferenceSession(model, threads=1).explain(repeats=0)
    assert [r["op"] for r in rows] == ["QuantizeLinear", "Conv", "Layout"], rows


def test_a_weight_that_two_read_is_moved_for_one() -> None:
    net = Net(33)
    grid = net.grid()
    w = net.rng.integers(-127, 128, (IN, IN))
    wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(F(0.01), F), net.const(0, np.int8))
    xd = net.dequantize(net.quantize("x", *grid), *grid)
    a, b = net.node("MatMul", xd, wd), net.node("MatMul", xd, net.node("Transpose", wd))
    model = net.model({"x": [3, IN]}, {a: TensorProto.FLOAT, b: TensorProto.FLOAT})
    x = net.rng.standard_normal((3, IN)).astype(F)
    q = np.clip(np.rint(x / grid[0]) + grid[1], 0, 255) - grid[1]
    session = InferenceSession(model, threads=1)
    got = session.run(None, {"x": x})
    for y, weight in zip(got, (w, w.T), strict=True):
        np.testing.assert_array_equal(y, (q @ weight).astype(F) * F(grid[0] * F(0.01)))
    assert sum(r["kernel"].startswith("qconv_") for r in session.explain(repeats=0)) == 2


def test_scales_that_no_axis_holds_any_more_stay_in_float32() -> None:
    """An axis of scales that a Reshape splits: the layer says so and gives the float32 result."""
    net = Net(34)
    grid = net.grid()
    w = net.rng.integers(-127, 128, (4, 6, 5))
    scale = np.linspace(0.001, 0.01, 4, dtype=F)
    wd = net.node(
        "DequantizeLinear", net.const(w, np.int8), net.const(scale, F), net.const(np.zeros(4), np.int8), axis=0
    )
    y = net.node("MatMul", net.dequantize(net.quantize("x", *grid), *grid), net.node("Reshape", wd, ints(net, 24, 5)))
    model = net.model({"x": [3, 24]}, {y: TensorProto.FLOAT})
    x = net.rng.standard_normal((3, 24)).astype(F)
    session = InferenceSession(model, threads=1)
    real = (np.clip(np.rint(x / grid[0]) + grid[1], 0, 255) - grid[1]) * grid[0]
    np.testing.assert_allclose(
        session.run(None, {"x": x})[0], real @ (w * scale[:, None, None]).reshape(24, 5), rtol=1e-4, atol=1e-4
    )
    (row,) = [r for r in session.explain(repeats=0) if r["n_weights"]]
    assert row["why"].startswith("computed in float32: its second operand comes from Reshape"), row["why"]
