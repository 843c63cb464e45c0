"""Quantized networks run in integers: bit for bit as an integer reference on every ISA, within a step of ONNX Runtime.

The reference is the definition of `engine/kernels/qconv/qconv.h`: sums in int32, one float32 multiply, rounding half to
even, saturation. ONNX Runtime rounds `sum * scale` in other orders: a result may differ by one step where it is near a
half, and a layer behind it by as much as one step of its input can move it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from secateur.engine import InferenceSession, inspect, isas
from secateur.errors import FormatError, UnsupportedError

from .quant_graphs import F, Net, against_oracle, conv_sums, layer, on_every_isa, requantized, rint

CONVS = [
    # in, size, out, kernel, stride, pad, dilation, groups
    (3, 9, 8, 3, 1, 1, 1, 1),
    (8, 8, 8, 1, 1, 0, 1, 1),
    (16, 7, 12, 3, 2, 1, 1, 1),
    (5, 12, 6, 5, 1, 2, 1, 1),
    (4, 17, 5, 7, 2, 3, 1, 1),
    (8, 11, 8, 3, 1, 2, 2, 1),
    (8, 10, 12, 3, 1, 1, 1, 4),
    (12, 8, 12, 3, 1, 1, 1, 12),
]


@pytest.mark.parametrize("s8", [False, True])
@pytest.mark.parametrize("shape", CONVS)
def test_conv_is_exact(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], s8: bool) -> None:
    n_in, size, out, kernel, stride, pad, dilation, groups = shape
    for seed, (density, per_channel, relu, bias) in enumerate(
        [
            (1.0, True, "none", "int32"),
            (0.1, True, "relu", "float"),
            (0.3, False, "clip", "none"),
            (0.0, True, "none", "int32"),
        ]
    ):
        net = Net(seed, s8)
        w = net.rng.integers(-127, 128, (out, n_in // groups, kernel, kernel)) * (
            net.rng.random((out, n_in // groups, kernel, kernel)) < density
        )
        grid = net.grid()
        q = net.quantize("x", *grid)
        y, scale, b, y_grid, bounds = layer(
            net,
            q,
            grid,
            w,
            per_channel,
            relu,
            bias,
            strides=[stride] * 2,
            pads=[pad] * 4,
            dilations=[dilation] * 2,
            group=groups,
        )
        model = net.model({"x": ["batch", n_in, size, size]}, {y: net.qtype})
        x = net.rng.standard_normal((2, n_in, size, size)).astype(F)
        qx = np.clip(rint(x / grid[0]) + grid[1], *net.bounds)
        want = requantized(conv_sums(qx - grid[1], w, stride, pad, dilation, groups), b, scale, grid, y_grid, bounds)
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got, want)
        (theirs,) = against_oracle(model, {"x": x})
        assert np.max(np.abs(theirs.astype(int) - want)) <= 1
        session = InferenceSession(model, threads=1)
        assert any(row["kernel"].startswith("qconv_") for row in session.explain(repeats=0))


@pytest.mark.parametrize("s8", [False, True])
def test_block_with_residual_pools_and_head_is_exact(monkeypatch: pytest.MonkeyPatch, s8: bool) -> None:
    net = Net(5, s8)
    x = net.rng.standard_normal((2, 6, 16, 16)).astype(F)
    g0 = net.grid()
    w1 = net.rng.integers(-127, 128, (10, 6, 3, 3)) * (net.rng.random((10, 6, 3, 3)) < 0.2)
    w2 = net.rng.integers(-127, 128, (10, 10, 3, 3))
    q0 = net.quantize("x", *g0)
    q1, s1, b1, g1, c1 = layer(net, q0, g0, w1, True, "relu", "int32", pads=[1] * 4)
    q2, s2, b2, g2, c2 = layer(net, q1, g1, w2, True, "none", "int32", pads=[1] * 4)
    g3 = net.grid()
    q3 = net.quantize(net.node("Relu", net.node("Add", net.dequantize(q2, *g2), net.dequantize(q1, *g1))), *g3)
    q4 = net.quantize(
        net.node("MaxPool", net.dequantize(q3, *g3), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), *g3
    )
    g5 = net.grid()
    q5 = net.quantize(net.node("GlobalAveragePool", net.dequantize(q4, *g3)), *g5)
    q6 = net.quantize(net.node("Flatten", net.dequantize(q5, *g5)), *g5)
    w7 = net.rng.integers(-127, 128, (7, 10))
    s7 = net.rng.uniform(0.01, 0.02, 7).astype(F)
    g7 = net.grid()
    w7d = net.node(
        "DequantizeLinear", net.const(w7, np.int8), net.const(s7, F), net.const(np.zeros(7), np.int8), axis=0
    )
    q7 = net.quantize(net.node("Gemm", net.dequantize(q6, *g5), w7d, transB=1), *g7)
    out = net.dequantize(q7, *g7)
    model = net.model({"x": ["batch", 6, 16, 16]}, {out: TensorProto.FLOAT, q3: net.qtype, q6: net.qtype})

    lo, hi = net.bounds
    n0 = np.clip(rint(x / g0[0]) + g0[1], lo, hi)
    n1 = requantized(conv_sums(n0 - g0[1], w1, 1, 1, 1, 1), b1, s1, g0, g1, c1)
    n2 = requantized(conv_sums(n1 - g1[1], w2, 1, 1, 1, 1), b2, s2, g1, g2, c2)
    total = (n2 - g2[1]).astype(F) * F(g2[0] / g3[0]) + (n1 - g1[1]).astype(F) * F(g1[0] / g3[0])
    n3 = np.clip(rint(total) + g3[1], g3[1], hi)
    padded = np.pad(n3, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=lo)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    n4 = windows.max(axis=(4, 5))
    factor = F(F(g3[0] / g5[0]) / F(64))
    n5 = np.clip(rint((n4 - g3[1]).sum(axis=(2, 3)).astype(F) * factor) + g5[1], lo, hi)
    sums = (n5 - g5[1]) @ w7.T
    n7 = np.clip(rint(sums.astype(F) * (g5[0] * s7 / g7[0]).astype(F)) + g7[1], lo, hi)

    got = on_every_isa(monkeypatch, model, {"x": x})
    np.testing.assert_array_equal(got[1], n3)
    np.testing.assert_array_equal(got[2], n5)
    np.testing.assert_array_equal(got[0], (n7 - g7[1]).astype(F) * g7[0])
    kernels = [row["kernel"] for row in InferenceSession(model, threads=1).explain(repeats=0)]
    assert not any("f32_ref" in k for k in kernels), kernels
    theirs = against_oracle(model, {"x": x})
    assert np.max(np.abs(theirs[1].astype(int) - n3)) <= 2  # one step of each operand of the sum
    assert np.max(np.abs(theirs[0] - got[0])) <= 3 * g7[0]


def test_linear_of_tokens_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, transposed in [((1, 37), False), ((5, 37), True), ((2, 9, 37), False), ((64, 37), False)]:
        net = Net(11)
        grid, y_grid = net.grid(), net.grid()
        w = net.rng.integers(-127, 128, (22, 37))
        scale = net.rng.uniform(0.001, 0.01, 22).astype(F)
        value, axis = (w, 0) if transposed else (w.T, 1)
        zero = net.const(np.zeros(22), np.int8)
        wd = net.node("DequantizeLinear", net.const(value, np.int8), net.const(scale, F), zero, axis=axis)
        xd = net.dequantize(net.quantize("x", *grid), *grid)
        y = net.node("Gemm", xd, wd, transB=1) if transposed else net.node("MatMul", xd, wd)
        q = net.quantize(y, *y_grid)
        model = net.model({"x": list(shape)}, {q: TensorProto.UINT8})
        x = net.rng.standard_normal(shape).astype(F)
        sums = (np.clip(rint(x / grid[0]) + grid[1], 0, 255) - grid[1]) @ w.T
        want = np.clip(rint(sums.astype(F) * (grid[0] * scale / y_grid[0]).astype(F)) + y_grid[1], 0, 255)
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got, want)


def test_linear_whose_result_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers whose result nobody quantizes: sum * scale + bias, each rounded to float32, for one row and for many."""
    for shape, op in [((1, 37), "Gemm"), ((5, 37), "Gemm"), ((2, 19, 37), "MatMul"), ((1, 64, 37), "MatMul")]:
        net = Net(12)
        grid = net.grid()
        w = net.rng.integers(-127, 128, (22, 37)) * (net.rng.random((22, 37)) < 0.3)
        scale = net.rng.uniform(0.001, 0.01, 22).astype(F)
        bias = net.rng.standard_normal(22).astype(F)
        zero = net.const(np.zeros(22), np.int8)
        xd = net.dequantize(net.quantize("x", *grid), *grid)
        if op == "Gemm":
            wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(scale, F), zero, axis=0)
            y = net.node("Gemm", xd, wd, net.const(bias, F), transB=1)
        else:
            wd = net.node("DequantizeLinear", net.const(w.T, np.int8), net.const(scale, F), zero, axis=1)
            y = net.node("Add", net.node("MatMul", xd, wd), net.const(bias, F))
        model = net.model({"x": ["batch", *shape[1:]]}, {y: TensorProto.FLOAT})
        x = net.rng.standard_normal(shape).astype(F)
        sums = (np.clip(rint(x / grid[0]) + grid[1], 0, 255) - grid[1]) @ w.T
        want = (sums.astype(F) * (grid[0] * scale)).astype(F) + bias
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got, want)
        (theirs,) = against_oracle(model, {"x": x})
        np.testing.assert_allclose(theirs, want, rtol=1e-5, atol=1e-5)
        assert any(row["kernel"].startswith("qconv_") for row in InferenceSession(model, threads=1).explain(repeats=0))


def test_gelu_between_two_linear_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer does its GELU and the quantization behind it: the same bytes at every ISA."""
    for shape in [(1, 37), (3, 19, 37), (1, 64, 37)]:
        net = Net(13)
        grid, hidden = (F(0.02), 120), (F(0.03), 10)
        w1, w2 = net.rng.integers(-127, 128, (37, 70)), net.rng.integers(-127, 128, (70, 9))
        zero, step = net.const(0, np.int8), net.const(0.002, F)
        d1, d2 = (net.node("DequantizeLinear", net.const(w, np.int8), step, zero) for w in (w1, w2))
        y = net.node("MatMul", net.dequantize(net.quantize("x", *grid), *grid), d1)
        gate = net.node("Add", net.node("Erf", net.node("Div", y, net.const(2**0.5, F))), net.const(1.0, F))
        y = net.node("Mul", net.node("Mul", y, gate), net.const(0.5, F))
        y = net.node("MatMul", net.dequantize(net.quantize(y, *hidden), *hidden), d2)
        model = net.model({"x": ["batch", *shape[1:]]}, {y: TensorProto.FLOAT})
        x = net.rng.standard_normal(shape).astype(F)
        (want,) = against_oracle(model, {"x": x})
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        # A GELU near a half may fall a step apart: three of 70 inputs at the largest weight.
        assert np.max(np.abs(got - want)) <= 3 * 127 * 0.002 * hidden[0]
        rows = InferenceSession(model, threads=1).explain(repeats=0)
        assert [r["op"] for r in rows].count("QuantizeLinear") == 1
        assert any("GELU fused" in r["why"] for r in rows)
        assert not any(r["op"] in ("Gelu", "Layout", "DequantizeLinear") for r in rows)


def test_blocks_of_four_outputs_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of 4x4 blocks is kept: one load serves four outputs. Kept at random in 1x4 blocks, that would not pay."""
    for rows, kernel in ((4, "qconv_4x4_"), (1, "qconv_1x4_")):
        net = Net(14)
        grid, y_grid = net.grid(), net.grid()
        keep = np.repeat(np.repeat(net.rng.random((64 // rows, 16, 3, 3)) < 0.1, rows, axis=0), 4, axis=1)
        w = net.rng.integers(-127, 128, (64, 64, 3, 3)) * keep
        wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(0.002, F), net.const(0, np.int8))
        y = net.node("Conv", net.dequantize(net.quantize("x", *grid), *grid), wd, pads=[1] * 4)
        q = net.quantize(y, *y_grid)
        model = net.model({"x": [1, 64, 16, 16]}, {q: net.qtype})
        x = net.rng.standard_normal((1, 64, 16, 16)).astype(F)
        lo, hi = net.bounds
        n = np.clip(rint(x / grid[0]) + grid[1], lo, hi) - grid[1]
        want = conv_sums(n, w, 1, 1, 1, 1).astype(F) * F(F(grid[0] * F(0.002)) / y_grid[0])
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got, np.clip(rint(want) + y_grid[1], lo, hi))
        monkeypatch.delenv("SECATEUR_ISA")
        rows_of_plan = InferenceSession(model, threads=1).explain(repeats=0)
        kernels = [r["kernel"] for r in rows_of_plan if r["kernel"].startswith("qconv_")]
        # Four lanes spend their time on the products: sharing a load gains nothing there, and either may be chosen.
        either = isas()[-1] == "portable" and rows == 4
        assert kernels[0].startswith(("qconv_4x4_", "qconv_1x4_") if either else kernel), rows_of_plan


def test_products_whose_zero_point_comes_while_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic quantization: constant weights are packed, the zero point is taken off the sums; to the last bit."""
    for shape in [(1, 40), (17, 40), (2, 19, 40), (33, 37)]:
        net = Net(15)
        w = net.rng.integers(-128, 128, (shape[-1], 50)) * (net.rng.random((shape[-1], 50)) < 0.5)
        outputs = [net.name() for _ in range(3)]
        net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], outputs))
        zero = net.const(0, np.int8)
        y = net.node("MatMulInteger", outputs[0], net.const(w, np.int8), outputs[2], zero)
        types = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
        model = net.model({"x": list(shape)}, {y: TensorProto.INT32, **dict(zip(outputs, types, strict=True))})
        x = net.rng.standard_normal(shape).astype(F)
        got = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got[0], (got[1].astype(np.int64) - int(got[3])) @ w)
        for ours, theirs in zip(got, against_oracle(model, {"x": x}), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        monkeypatch.delenv("SECATEUR_ISA")
        rows = InferenceSession(model, threads=1).explain(repeats=0)
        assert any(r["kernel"].startswith("qconv_") for r in rows), rows


def test_quantizing_plain_tensors_by_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for zero_type, axis in [(np.uint8, None), (np.int8, None), (np.uint8, 0), (np.int8, 1)]:
        net = Net(16)
        shape = (3, 4, 21)
        count = 1 if axis is None else shape[axis]
        info = np.iinfo(zero_type)
        scales = net.rng.uniform(0.01, 0.05, count).astype(F)
        zeros = net.rng.integers(info.min, info.max + 1, count).astype(zero_type)
        by = [1, 1, 1]
        if axis is not None:
            by[axis] = count
        scale, zero = scales.reshape(by), zeros.astype(int).reshape(by)
        names = [net.const(v if axis is not None else v[0], v.dtype) for v in (scales, zeros)]
        attributes = {} if axis is None else {"axis": axis}
        q = net.node("QuantizeLinear", "x", *names, **attributes)
        y = net.node("DequantizeLinear", q, *names, **attributes)
        code = TensorProto.UINT8 if zero_type is np.uint8 else TensorProto.INT8
        model = net.model({"x": list(shape)}, {q: code, y: TensorProto.FLOAT})
        x = net.rng.standard_normal(shape).astype(F) * F(3)
        x[0, 0, :4] = [np.inf, -np.inf, 1e30, -1e30]
        got = on_every_isa(monkeypatch, model, {"x": x})
        want = np.clip(rint(np.clip(x / scale, -1e6, 1e6)) + zero, info.min, info.max)
        np.testing.assert_array_equal(got[0], want)
        np.testing.assert_array_equal(got[1], (want - zero).astype(F) * scale)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_weights_with_zero_points_are_exact(monkeypatch: pytest.MonkeyPatch, dtype: Any, per_channel: bool) -> None:
    """Less their zero points they are wider than a byte: one convolution, one of two groups, one by channels."""
    info = np.iinfo(dtype)
    for groups, out in [(1, 7), (2, 6), (8, 8)]:
        net = Net(groups)
        grid, y_grid = net.grid(), net.grid()
        w = net.rng.integers(info.min, int(info.max) + 1, (out, 8 // groups, 3, 3))
        scale = net.rng.uniform(0.001, 0.01, out if per_channel else ()).astype(F) if per_channel else F(0.004)
        zero = net.rng.integers(info.min, int(info.max) + 1, out if per_channel else ())
        constants = [net.const(w, dtype), net.const(scale, F), net.const(zero, dtype)]
        wd = net.node("DequantizeLinear", *constants, axis=0)
        y = net.node("Conv", net.dequantize(net.quantize("x", *grid), *grid), wd, pads=[1] * 4, group=groups)
        q = net.quantize(y, *y_grid)
        model = net.model({"x": [1, 8, 9, 9]}, {q: net.qtype})
        x = net.rng.standard_normal((1, 8, 9, 9)).astype(F)
        n = np.clip(rint(x / grid[0]) + grid[1], *net.bounds) - grid[1]
        sums = conv_sums(n, w - np.broadcast_to(zero, out)[:, None, None, None], 1, 1, 1, groups)
        want = requantized(sums, np.zeros(out, int), scale * np.ones(out, F), grid, y_grid, net.bounds)
        (got,) = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got, want)
        monkeypatch.delenv("SECATEUR_ISA")
        assert any(row["kernel"].startswith("qconv_") for row in InferenceSession(model, threads=1).explain(repeats=0))


def test_a_convolution_that_others_read_unquantized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sums become float32 as a linear layer's do; the bytes of who quantizes it come from that."""
    net = Net(3)
    grid, y_grid = net.grid(), net.grid()
    w, bias = net.rng.integers(-127, 128, (6, 4, 3, 3)), net.rng.standard_normal(6).astype(F)
    wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(0.01, F), net.const(0, np.int8))
    c = net.node("Conv", net.dequantize(net.quantize("x", *grid), *grid), wd, net.const(bias, F))
    q = net.quantize(c, *y_grid)
    model = net.model({"x": ["batch", 4, 8, 8]}, {c: TensorProto.FLOAT, q: net.qtype})
    x = net.rng.standard_normal((2, 4, 8, 8)).astype(F)
    n = np.clip(rint(x / grid[0]) + grid[1], 0, 255) - grid[1]
    want = conv_sums(n, w, 1, 0, 1, 1).astype(F) * F(grid[0] * F(0.01)) + bias[:, None, None]
    got = on_every_isa(monkeypatch, model, {"x": x})
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_array_equal(got[1], np.clip(rint(want / y_grid[0]) + y_grid[1], 0, 255))


def why_float(model: bytes) -> str:
    """What explain() says of the only layer."""
    (row,) = [r for r in InferenceSession(model, threads=1, fallback=None).explain(repeats=0) if r["n_weights"]]
    return str(row["why"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("per_channel", "activations are quantized per channel"),
        ("only_weights", "activations are not quantized"),
        ("int16", "activations are int16"),
        ("scales", "scales of weights that are not one per output"),
        ("bias", "its bias is not one number per output"),
    ],
)
def test_a_layer_in_float32_says_why(kind: str, reason: str) -> None:
    net = Net(3)
    grid, y_grid = net.grid(), net.grid()
    w = net.rng.integers(-127, 127, (4, 4, 3, 3))
    scale = net.const([0.01, 0.02, 0.01, 0.03] if kind == "scales" else 0.01, F)
    zero = net.const([0] * 4 if kind == "scales" else 0, np.int8)
    inputs = [net.node("DequantizeLinear", net.const(w, np.int8), scale, zero, axis=1)]
    if kind == "per_channel":
        scales, zeros = net.const([0.01, 0.02, 0.03, 0.04], F), net.const([1, 2, 3, 4], np.uint8)
        xq = net.node("QuantizeLinear", "x", scales, zeros, axis=1)
        xd = net.node("DequantizeLinear", xq, scales, zeros, axis=1)
    elif kind == "int16":
        constants = net.const(0.001, F), net.const(3, np.int16)
        xd = net.node("DequantizeLinear", net.node("QuantizeLinear", "x", *constants), *constants)
    else:
        xd = "x" if kind == "only_weights" else net.dequantize(net.quantize("x", *grid), *grid)
    if kind == "bias":
        inputs.append(net.node("Mul", "b", net.const(1, F)))
    y = net.dequantize(net.quantize(net.node("Conv", xd, *inputs), *y_grid), *y_grid)
    shapes: dict[str, list[Any]] = {"x": [1, 4, 8, 8]} | ({"b": [4]} if kind == "bias" else {})
    model = net.model(shapes, {y: TensorProto.FLOAT})
    x = {"x": net.rng.standard_normal((1, 4, 8, 8)).astype(F)} | ({"b": np.ones(4, F)} if kind == "bias" else {})
    if kind == "int16":  # of a later opset
        proto = onnx.load_model_from_string(model)
        proto.opset_import[0].version = 21
        proto.ir_version = 10
        model = proto.SerializeToString()
    why = why_float(model)
    assert why.startswith("computed in float32"), why
    if kind != "bias":
        assert reason in why
    want = against_oracle(model, x)
    got = InferenceSession(model, threads=1).run(None, x)
    assert np.max(np.abs(got[0] - want[0])) <= 1.01 * y_grid[0], kind


def test_inspect_tells_integer_layers_from_the_others() -> None:
    """A bias between two steps leaves the layer in integers, its result in float32."""
    net = Net(1)
    model, _, _ = _linear(net, np.ones((4, 2)), 50.0, bias=net.const(np.full(2, 0.25), F))
    (layer,) = [row for row in inspect(model)["layers"] if row["n_weights"]]
    assert layer["why"].startswith("result in float32: a bias between two steps"), layer["why"]
    assert layer["arithmetic"] == "int8"
    assert not layer["plain_loops"]


def _linear(net: Net, w: np.ndarray, scale: float, bias: str = "") -> tuple[bytes, Any, Any]:
    """x -> quantize -> MatMul (+ bias) -> quantize. Returns the model and the grids of x and y."""
    grid, y_grid = (F(0.01), 0), (F(0.05), 10)
    wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(scale, F), net.const(0, np.int8))
    y = net.node("MatMul", net.dequantize(net.quantize("x", *grid), *grid), wd)
    q = net.quantize(net.node("Add", y, bias) if bias else y, *y_grid)
    return net.model({"x": [2, w.shape[0]]}, {q: TensorProto.UINT8}), grid, y_grid


def test_sums_that_could_leave_int32_run_in_float32() -> None:
    net = Net(1)
    w = np.full((70000, 2), 127)
    w[:, 1] *= np.where(np.arange(70000) % 2, 1, -1)
    model, grid, y_grid = _linear(net, w, 1e-7)
    session = InferenceSession(model, threads=1)
    assert not any(row["kernel"].startswith("qconv_") for row in session.explain(repeats=0))
    x = np.full((2, 70000), 2.55, F)
    want = np.clip(rint(255 * 127 * 70000 * float(grid[0]) * 1e-7 / float(y_grid[0])) + y_grid[1], 0, 255)
    (got,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(got, [[want, y_grid[1]]] * 2)


def test_a_bias_between_two_steps_is_added_in_float32() -> None:
    """One step of the sum is ten of the result here; a bias of half such a step must not be rounded away."""
    for bias, n_quantize in [(0.25, 2), (0.5, 1)]:
        net = Net(1)
        model, _, y_grid = _linear(net, np.ones((4, 2)), 50.0, bias=net.const(np.full(2, bias), F))
        session = InferenceSession(model, threads=1)
        assert sum(row["op"] == "QuantizeLinear" for row in session.explain(repeats=0)) == n_quantize
        (got,) = session.run(None, {"x": np.zeros((2, 4), F)})
        np.testing.assert_array_equal(got, np.full((2, 2), rint(F(bias) / y_grid[0]) + y_grid[1]))


def test_an_operand_and_its_zero_point_must_have_one_type() -> None:
    net = Net(2)
    q = net.quantize("x", F(0.01), 3)
    wd = net.node("DequantizeLinear", net.const(np.ones((4, 2)), np.int8), net.const(0.01, F), net.const(0, np.int8))
    xd = net.node("DequantizeLinear", q, net.const(0.01, F), net.const(3, np.int8))
    y = net.quantize(net.node("MatMul", xd, wd), F(0.01), 3)
    with pytest.raises(FormatError, match="different dtypes"):
        InferenceSession(net.model({"x": [2, 4]}, {y: TensorProto.UINT8}))


def test_rows_of_a_product_may_have_scales_of_their_own() -> None:
    net = Net(4)
    rows, columns = np.array([0.1, 0.2, 0.3], F), np.array([0.01, 0.02, 0.03], F)
    a, b = net.rng.integers(0, 256, (3, 3)), net.rng.integers(-127, 128, (3, 3))
    zero, zeros, no_zeros = net.const(7, np.uint8), net.const(np.full(3, 9), np.uint8), net.const(np.zeros(3), np.int8)
    inputs = ["a", net.const(rows, F), zeros, net.const(b, np.int8), net.const(columns, F), no_zeros]
    y = net.node("QLinearMatMul", *inputs, net.const(1.0, F), zero)
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [3, 3])],
        [helper.make_tensor_value_info(y, TensorProto.UINT8, None)],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (got,) = InferenceSession(model).run(None, {"a": a.astype(np.uint8)})
    want = rint(((a - 9) * rows[:, None].astype(float)) @ (b * columns.astype(float))) + 7
    np.testing.assert_array_equal(got, np.clip(want, 0, 255))


def test_qoperators_agree_with_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(8)
    ms = "com.microsoft"
    u8, s8, i32 = np.uint8, np.int8, np.int32
    x_scale, x_zero = net.const(0.02, F), net.const(120, u8)
    q = net.node("QuantizeLinear", "x", x_scale, x_zero)
    w_scale = net.rng.uniform(0.003, 0.006, 8).astype(F)
    w = net.const(net.rng.integers(-127, 128, (8, 5, 3, 3)), s8)
    b = net.const(net.rng.integers(-2000, 2000, 8), i32)
    c_scale, c_zero = net.const(0.05, F), net.const(100, u8)
    zeros = net.const(np.zeros(8), s8)
    conv = net.node(
        "QLinearConv", q, x_scale, x_zero, w, net.const(w_scale, F), zeros, c_scale, c_zero, b, pads=[1] * 4
    )
    a_scale, a_zero = net.const(0.09, F), net.const(90, u8)
    total = net.node("QLinearAdd", conv, c_scale, c_zero, conv, c_scale, c_zero, a_scale, a_zero, domain=ms)
    p_scale, p_zero = net.const(0.03, F), net.const(110, u8)
    pooled = net.node("QLinearGlobalAveragePool", total, a_scale, a_zero, p_scale, p_zero, domain=ms)
    flat = net.node("Flatten", pooled)
    m = net.const(net.rng.integers(-127, 128, (8, 6)), s8)
    m_scale, m_zero = net.const(0.01, F), net.const(0, s8)
    y_scale, y_zero = net.const(0.02, F), net.const(128, u8)
    left = net.node("QLinearMatMul", flat, p_scale, p_zero, m, m_scale, m_zero, y_scale, y_zero)
    g_bias = net.const(net.rng.integers(-500, 500, 4), i32)
    g = net.const(net.rng.integers(-127, 128, (6, 4)), s8)
    gemm = net.node("QGemm", left, y_scale, y_zero, g, m_scale, m_zero, g_bias, y_scale, y_zero, domain=ms, alpha=1.0)
    outputs = dict.fromkeys((conv, total, pooled, left, gemm), TensorProto.UINT8)
    model = net.model({"x": ["batch", 5, 9, 9]}, outputs, (ms,))
    x = net.rng.standard_normal((3, 5, 9, 9)).astype(F)
    got = on_every_isa(monkeypatch, model, {"x": x})
    want = against_oracle(model, {"x": x})
    # Each result may be a step off, and pass a step of its input on: two through the sum, little through the others.
    for name, a, b, steps in zip(outputs, got, want, (1, 2, 2, 3, 4), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.max(np.abs(a.astype(int) - b.astype(int))) <= steps, name


def test_more_qoperators_agree_with_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products, joins, pools and functions of bytes: within a step; weights of u8 with zero points of their own."""
    ms = "com.microsoft"
    net = Net(9)
    x_grid = net.const(0.02, F), net.const(120, np.uint8)
    q = net.node("QuantizeLinear", "x", *x_grid)
    w, w_zero = net.rng.integers(0, 256, (8, 5, 3, 3)), net.rng.integers(100, 156, 8)
    w_scale = net.rng.uniform(0.003, 0.006, 8).astype(F)
    grid = net.const(0.05, F), net.const(100, np.uint8)
    constants = net.const(w, np.uint8), net.const(w_scale, F), net.const(w_zero, np.uint8)
    conv = net.node("QLinearConv", q, *x_grid, *constants, *grid, pads=[1] * 4)
    s_grid = net.const(1 / 256, F), net.const(0, np.uint8)
    gate = net.node("QLinearSigmoid", conv, *grid, *s_grid, domain=ms)
    leaky = net.node("QLinearLeakyRelu", conv, *grid, *grid, domain=ms, alpha=0.1)
    product = net.node("QLinearMul", conv, *grid, gate, *s_grid, *grid, domain=ms)
    joined = net.node("QLinearConcat", *grid, product, *grid, gate, *s_grid, domain=ms, axis=1)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    pooled = net.node("QLinearAveragePool", joined, *grid, *grid, domain=ms, **window)
    outputs = dict.fromkeys((conv, gate, leaky, product, joined, pooled), TensorProto.UINT8)
    model = net.model({"x": ["batch", 5, 9, 9]}, outputs, (ms,))
    x = net.rng.standard_normal((3, 5, 9, 9)).astype(F)
    got = on_every_isa(monkeypatch, model, {"x": x})
    n = np.clip(rint(x / F(0.02)) + 120, 0, 255) - 120
    sums = conv_sums(n, w - w_zero[:, None, None, None], 1, 1, 1, 1)
    want = requantized(sums, np.zeros(8, int), w_scale, (F(0.02), 0), (F(0.05), 100), (0, 255))
    np.testing.assert_array_equal(got[0], want)
    for name, a, b, steps in zip(outputs, got, against_oracle(model, {"x": x}), (1, 4, 1, 2, 2, 2), strict=True):
        assert np.max(np.abs(a.astype(int) - b.astype(int))) <= steps, name
    monkeypatch.delenv("SECATEUR_ISA")
    rows = InferenceSession(model, threads=1, fallback=None).explain(repeats=0)
    assert [r["kernel"] for r in rows].count("table_u8") == 2


def test_a_file_may_not_name_the_passes_own_nodes() -> None:
    net = Net(0)
    y = net.node("QuadConv", "x", "x", "x", "x", domain="secateur")
    with pytest.raises((UnsupportedError, FormatError), match="QuadConv"):
        InferenceSession(net.model({"x": [1, 4, 4, 4]}, {y: TensorProto.FLOAT}, ("secateur",)), fallback=None)


@pytest.mark.parametrize("sum_s8", [False, True])
def test_a_sum_of_another_sign_than_the_layer_before_it(monkeypatch: pytest.MonkeyPatch, sum_s8: bool) -> None:
    """A convolution's own result is s8, the ReLU of the sum u8, as nets have them whose activations were trained."""
    net = Net(5)
    own, after, scale = (np.uint8, np.int8, 0.02) if sum_s8 else (np.int8, np.uint8, 0.03)
    zero = {t: net.const(0, t) for t in (np.int8, np.uint8)}
    size = net.const(scale, F)

    def rounded(value: str, kind: Any) -> str:
        return net.node("DequantizeLinear", net.node("QuantizeLinear", value, size, zero[kind]), size, zero[kind])

    w = net.node("DequantizeLinear", net.const(net.rng.integers(-99, 99, (8, 8, 3, 3)), np.int8), net.const(0.002, F))
    x = rounded("x", np.int8)
    y = rounded(net.node("Conv", x, w, pads=[1] * 4), own)
    total = net.node("Add", x, y)
    total = rounded(total if sum_s8 else net.node("Relu", total), after)
    net.nodes.append(helper.make_node("Concat", [total, x], ["y"], axis=1))  # reads it as it is, not in words of four
    model = net.model({"x": [1, 8, 6, 6]}, {"y": TensorProto.FLOAT})
    feeds = {"x": net.rng.normal(size=(1, 8, 6, 6)).astype(F)}
    found = on_every_isa(monkeypatch, model, feeds)[0]
    assert np.abs(found - against_oracle(model, feeds)[0]).max() <= 1.01 * scale
    assert (found != against_oracle(model, feeds)[0]).mean() <= 0.02
