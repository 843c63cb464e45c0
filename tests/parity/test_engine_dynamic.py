"""Integer products whose zero points and scales come while running, or whose weights have zero points of their own.

All are exact: int32 sums are compared to the last bit, on every ISA, with a loop over the definition; what is float32
is one rounding of each operation behind the sum.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from secateur.engine import InferenceSession
from secateur.errors import HandedOverWarning, UnsupportedError
from secateur.shell import runtimes

from .quant_graphs import F, Net, against_oracle, conv_sums, on_every_isa, rint


def dynamic(net: Net, x: str = "x") -> tuple[str, str, str]:
    names = (net.name(), net.name(), net.name())
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], names))
    return names


def kernels(model: bytes) -> list[str]:
    return [row["kernel"] for row in InferenceSession(model, threads=1, fallback=None).explain(repeats=0)]


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
    """DynamicQuantizeLinear by its definition."""
    low, high = min(x.min(), F(0)), max(x.max(), F(0))
    scale = F(F(high - low) / F(255))
    zero = int(np.clip(rint(-low / scale), 0, 255))
    return np.clip(rint(x / scale) + zero, 0, 255), scale, zero


CONVS = [
    # in, size, out, kernel, stride, pad, dilation, groups
    (3, 9, 8, 3, 1, 1, 1, 1),
    (16, 8, 8, 1, 1, 0, 1, 1),
    (16, 7, 12, 3, 2, 1, 1, 1),
    (5, 12, 6, 5, 1, 2, 1, 1),
    (8, 11, 8, 3, 1, 2, 2, 1),
    (8, 10, 12, 3, 1, 1, 1, 4),
    (12, 17, 12, 3, 1, 1, 1, 12),
    (9, 18, 9, 3, 2, 1, 1, 9),
    (6, 1, 9, 1, 1, 0, 1, 1),
]
WEIGHTS = [
    (np.int8, None),
    (np.int8, "one"),
    (np.uint8, None),
    (np.uint8, "one"),
    (np.uint8, "each"),
    (np.int8, "each"),
]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", CONVS)
def test_convolutions_are_exact(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], weights: Any) -> None:
    """Sums, and the float32 result of the Cast, Mul and Add that quantizers write behind them."""
    n_in, size, out, kernel, stride, pad, dilation, groups = shape
    dtype, zeros = weights
    net = Net(17)
    info = np.iinfo(dtype)
    w = net.rng.integers(info.min, int(info.max) + 1, (out, n_in // groups, kernel, kernel))
    w_zero = (
        net.rng.integers(info.min, int(info.max) + 1, out)
        if zeros == "each"
        else np.full(out, 140 if dtype is np.uint8 else 9)
    )
    inputs = [net.const(w, dtype)]
    q, x_scale, x_zero = dynamic(net)
    inputs = [q, *inputs, x_zero]
    if zeros is None:
        w_zero = np.zeros(out, int)
    else:
        inputs.append(net.const(w_zero if zeros == "each" else w_zero[0], dtype))
    attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2, "group": groups}
    sums = net.node("ConvInteger", *inputs, **attributes)
    scale, bias = net.rng.uniform(0.001, 0.01, (1, out, 1, 1)).astype(F), net.rng.standard_normal((out, 1, 1)).astype(F)
    other = net.node("ConvInteger", *inputs, **attributes)
    y = net.node("Cast", other, to=TensorProto.FLOAT)
    y = net.node("Add", net.node("Mul", y, net.node("Mul", x_scale, net.const(scale, F))), net.const(bias, F))
    model = net.model({"x": ["batch", n_in, size, size]}, {sums: TensorProto.INT32, y: TensorProto.FLOAT})
    x = net.rng.standard_normal((2, n_in, size, size)).astype(F)
    qx, step, zero = quantized(x)
    want = conv_sums(qx - zero, w - w_zero[:, None, None, None], stride, pad, dilation, groups)
    got = on_every_isa(monkeypatch, model, {"x": x})
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_array_equal(got[1], want.astype(F) * (step * scale) + bias)
    monkeypatch.delenv("SECATEUR_ISA")
    rows = InferenceSession(model, threads=1).explain(repeats=0)
    assert [r["kernel"].startswith("qconv_") for r in rows if "Conv" in r["op"]] == [True, True]
    assert not any(r["op"] in ("Cast", "Mul", "Add") for r in rows)


def test_convolutions_of_signals_and_of_signed_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, zero in [(np.int8, -5), (np.uint8, 200), (np.int8, None)]:
        net = Net(18)
        w, w_zero = net.rng.integers(0, 256, (7, 6, 5)), net.rng.integers(0, 256, 7)
        x = net.rng.integers(np.iinfo(dtype).min, int(np.iinfo(dtype).max) + 1, (2, 6, 23))
        zero_name = "" if zero is None else net.const(zero, dtype)
        y = net.node(
            "ConvInteger", "q", net.const(w, np.uint8), zero_name, net.const(w_zero, np.uint8), pads=[3, 1], strides=[2]
        )
        model = bytes_model(net, {"q": (dtype, [2, 6, 23])}, {y: TensorProto.INT32})
        padded = np.pad(x - (zero or 0), ((0, 0), (0, 0), (3, 1)))
        want = np.stack(
            [np.einsum("ncw,ocw->no", padded[..., i : i + 5], w - w_zero[:, None, None]) for i in range(0, 23, 2)], -1
        )
        (got,) = on_every_isa(monkeypatch, model, {"q": x.astype(dtype)})
        np.testing.assert_array_equal(got, want)
        assert any(k.startswith("qconv_") for k in kernels(model))


def bytes_model(net: Net, inputs: dict[str, Any], outputs: dict[str, int], domains: tuple[str, ...] = ()) -> bytes:
    """A model whose inputs are bytes: name -> (dtype, shape)."""
    graph = helper.make_graph(
        net.nodes,
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), s)
            for n, (t, s) in inputs.items()
        ],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        net.constants,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.mark.parametrize("rows", [1, 19])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_products_are_exact(monkeypatch: pytest.MonkeyPatch, weights: Any, rows: int) -> None:
    dtype, zeros = weights
    net = Net(19)
    info = np.iinfo(dtype)
    w = net.rng.integers(info.min, int(info.max) + 1, (41, 50))
    w_zero = net.rng.integers(info.min, int(info.max) + 1, 50) if zeros == "each" else np.full(50, 3 if zeros else 0)
    q, x_scale, x_zero = dynamic(net)
    inputs = [q, net.const(w, dtype), x_zero]
    if zeros:
        inputs.append(net.const(w_zero if zeros == "each" else w_zero[0], dtype))
    sums = net.node("MatMulInteger", *inputs)
    scale, bias = net.rng.uniform(0.001, 0.01, 50).astype(F), net.rng.standard_normal(50).astype(F)
    y = net.node("Cast", net.node("MatMulInteger", *inputs), to=TensorProto.FLOAT)
    y = net.node("Add", net.const(bias, F), net.node("Mul", net.node("Mul", net.const(scale, F), x_scale), y))
    model = net.model({"x": [rows, 41]}, {sums: TensorProto.INT32, y: TensorProto.FLOAT})
    x = net.rng.standard_normal((rows, 41)).astype(F)
    qx, step, zero = quantized(x)
    want = (qx - zero) @ (w - w_zero)
    got = on_every_isa(monkeypatch, model, {"x": x})
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_array_equal(got[1], want.astype(F) * (step * scale) + bias)
    monkeypatch.delenv("SECATEUR_ISA")
    assert [k[:5] for k in kernels(model)].count("qconv") == 2


def test_fused_products_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamicQuantizeMatMul and MatMulIntegerToFloat, which its optimiser makes of the operators above."""
    ms = "com.microsoft"
    net = Net(20)
    w, scale = net.rng.integers(0, 256, (24, 10)), net.rng.uniform(0.01, 0.02, 10).astype(F)
    zero, bias = net.rng.integers(100, 150, 10), net.rng.standard_normal(10).astype(F)
    constants = [net.const(w, np.uint8), net.const(scale, F), net.const(zero, np.uint8), net.const(bias, F)]
    a = net.node("DynamicQuantizeMatMul", "x", *constants, domain=ms)
    q, x_scale, x_zero = dynamic(net)
    b = net.node("MatMulIntegerToFloat", q, constants[0], x_scale, constants[1], x_zero, constants[2], domain=ms)
    model = net.model({"x": [5, 24]}, {a: TensorProto.FLOAT, b: TensorProto.FLOAT}, (ms,))
    x = net.rng.standard_normal((5, 24)).astype(F)
    qx, step, x0 = quantized(x)
    want = ((qx - x0) @ (w - zero)).astype(F) * (step * scale)
    got = on_every_isa(monkeypatch, model, {"x": x})
    np.testing.assert_array_equal(got[0], want + bias)
    np.testing.assert_array_equal(got[1], want)
    for ours, theirs in zip(got, against_oracle(model, {"x": x}), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    monkeypatch.delenv("SECATEUR_ISA")
    assert not any(k.endswith("integer_ref") for k in kernels(model))


def test_networks_of_the_dynamic_quantizer(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What quantize_dynamic writes: no plain loop, and ONNX Runtime's results where its products do not saturate."""
    quantization = runtimes.onnxruntime("quantization")
    net = Net(21)
    x, c = "x", 3
    for out, stride, groups in [(8, 2, 1), (8, 1, 8), (16, 1, 1)]:
        w = net.rng.standard_normal((out, c // groups, 3, 3)) / (3 * (c // groups) ** 0.5)
        y = net.node(
            "Conv",
            x,
            net.const(w, F),
            net.const(net.rng.standard_normal(out), F),
            strides=[stride] * 2,
            pads=[1] * 4,
            group=groups,
        )
        x, c = net.node("Relu", y), out
    flat = net.node("Flatten", net.node("GlobalAveragePool", x))
    y = net.node("MatMul", flat, net.const(net.rng.standard_normal((16, 10)), F))
    float_net = tmp_path / "float.onnx"
    float_net.write_bytes(net.model({"x": [1, 3, 20, 20]}, {y: TensorProto.FLOAT}))
    feed = {"x": net.rng.standard_normal((1, 3, 20, 20)).astype(F)}
    for kind in (quantization.QuantType.QUInt8, quantization.QuantType.QInt8):
        target = tmp_path / f"{kind}.onnx"
        quantization.quantize_dynamic(float_net, target, weight_type=kind)
        model = target.read_bytes()
        (got,) = on_every_isa(monkeypatch, model, feed)
        monkeypatch.delenv("SECATEUR_ISA")
        assert not any(k.endswith("integer_ref") for k in kernels(model))
        (plain,) = against_oracle(model, feed)
        # The means before the last layer may differ by a rounding, and move a byte of it by a step.
        np.testing.assert_allclose(got, plain, atol=0.02 * np.abs(plain).max())


def two_activations(n: int) -> tuple[bytes, dict[str, np.ndarray]]:
    net = Net(22)
    y = net.node("MatMulInteger", "a", "b", net.const(7, np.uint8), net.const(-3, np.int8))
    model = bytes_model(net, {"a": (np.uint8, [n, n]), "b": (np.int8, [n, n])}, {y: TensorProto.INT32})
    feeds = {
        "a": net.rng.integers(0, 256, (n, n)).astype(np.uint8),
        # Of seven bits: on AVX2 without VNNI ONNX Runtime adds pairs of products in 16 bits, which saturate beyond.
        "b": net.rng.integers(-63, 64, (n, n)).astype(np.int8),
    }
    return model, feeds


def test_a_layer_of_plain_loops_is_handed_over() -> None:
    """Two operands that come while running have no kernel: small ones stay, others go where there is one."""
    model, feeds = two_activations(64)
    want = (feeds["a"].astype(int) - 7) @ (feeds["b"].astype(int) + 3)
    with pytest.warns(HandedOverWarning, match="plain loops"):
        session = InferenceSession(model, threads=1)
    np.testing.assert_array_equal(session.run(None, feeds)[0], want)
    assert [h["op"] for h in session.coverage["handed_over"]] == ["MatMulInteger"]
    alone = InferenceSession(model, threads=1, fallback=None)
    np.testing.assert_array_equal(alone.run(None, feeds)[0], want)
    assert kernels(model) == ["matmul_integer_ref"]
    model, feeds = two_activations(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = InferenceSession(model, threads=1)
    assert session.coverage["handed_over"] == []


def test_what_onnxruntime_refuses_too_runs_in_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.engine import session

    class Refusing(session.Parts):
        def __init__(self, *_: Any) -> None:
            raise UnsupportedError("neither takes it")

    monkeypatch.setattr(session, "Parts", Refusing)
    model, feeds = two_activations(64)
    want = (feeds["a"].astype(int) - 7) @ (feeds["b"].astype(int) + 3)
    np.testing.assert_array_equal(InferenceSession(model, threads=1).run(None, feeds)[0], want)


def test_a_range_of_nothing_but_zero_and_one_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """All zeros: scale 0 and bytes 0. NaN is no end of a range."""
    net = Net(23)
    q, scale, zero = dynamic(net)
    types = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
    model = net.model({"x": [3, 50]}, dict(zip((q, scale, zero), types, strict=True)))
    got = on_every_isa(monkeypatch, model, {"x": np.zeros((3, 50), F)})
    assert not got[0].any()
    x = net.rng.standard_normal((3, 50)).astype(F)
    x[1, 7] = np.nan
    got = on_every_isa(monkeypatch, model, {"x": x})
    assert got[1] == quantized(np.nan_to_num(x))[1]


@pytest.mark.parametrize("kind", ["relu", "clip", "clip from -1"])
def test_a_relu_before_the_range_is_part_of_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Bytes saturate where it would have cut; one that cuts elsewhere, or that others read, stays."""
    net = Net(25)
    if kind == "relu":
        cut = net.node("Relu", "x")
    else:
        cut = net.node("Clip", "x", net.const(0 if kind == "clip" else -1, F), net.const(1.5, F))
    q, scale, zero = dynamic(net, cut)
    w = net.rng.integers(-127, 128, (8, 6))
    y = net.node("MatMulInteger", q, net.const(w, np.int8), zero)
    types = {y: TensorProto.INT32, scale: TensorProto.FLOAT, zero: TensorProto.UINT8}
    model = net.model({"x": ["n", 8]}, types)
    for top in (1.0, 3.0):
        x = (net.rng.random((33, 8)) * 2 * top - top).astype(F)
        x[0, 0] = top
        real = np.maximum(x, 0) if kind == "relu" else np.clip(x, F(0 if kind == "clip" else -1), F(1.5))
        qx, step, x0 = quantized(real)
        got = on_every_isa(monkeypatch, model, {"x": x})
        np.testing.assert_array_equal(got[0], (qx - x0) @ w)
        assert (got[1], got[2]) == (step, x0)
    monkeypatch.delenv("SECATEUR_ISA")
    session = InferenceSession(model, threads=1)
    session.run(None, {"x": x})
    whys = [r["why"] for r in session.explain(batch=33, repeats=0)]
    assert any("Relu fused" in why for why in whys) == (kind != "clip from -1")


def test_no_rows_give_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(26)
    q, scale, zero = dynamic(net)
    y = net.node("MatMulInteger", q, net.const(net.rng.integers(-127, 128, (8, 6)), np.int8), zero)
    y = net.node("Mul", net.node("Cast", y, to=TensorProto.FLOAT), scale)
    model = net.model({"x": ["n", 8]}, {y: TensorProto.FLOAT})
    (got,) = on_every_isa(monkeypatch, model, {"x": np.zeros((0, 8), F)})
    assert got.shape == (0, 6)
    net = Net(27)
    q, scale, zero = dynamic(net)
    y = net.node("ConvInteger", q, net.const(net.rng.integers(0, 256, (5, 4, 3, 3)), np.uint8), zero, pads=[1] * 4)
    model = net.model({"x": ["n", 4, 6, 6]}, {y: TensorProto.INT32})
    (got,) = on_every_isa(monkeypatch, model, {"x": np.zeros((0, 4, 6, 6), F)})
    assert got.shape == (0, 5, 6, 6)


def test_scales_beyond_int32_are_handed_over() -> None:
    """Sums times their scale leave int32: no kernel takes that."""
    net = Net(28)
    grid = (F(0.01), 0)
    w = net.node(
        "DequantizeLinear", net.const(np.full((16, 16, 3, 3), 9), np.int8), net.const(F(1e9), F), net.const(0, np.int8)
    )
    y = net.node("Conv", net.dequantize(net.quantize("x", *grid), *grid), w, pads=[1] * 4)
    model = net.model({"x": [1, 16, 12, 12]}, {net.quantize(y, F(1e-6), 0): TensorProto.UINT8})
    x = {"x": net.rng.random((1, 16, 12, 12)).astype(F)}
    with pytest.warns(HandedOverWarning, match="plain loops"):
        (got,) = InferenceSession(model, threads=1).run(None, x)
    np.testing.assert_array_equal(got, InferenceSession(model, threads=1, fallback=None).run(None, x)[0])


def test_inspect_sees_the_weights_of_integer_operators() -> None:
    """Less their zero points: shape, density, bits, multiply-adds; int8 arithmetic."""
    from secateur.engine import inspect

    net = Net(29)
    q, _, zero = dynamic(net)
    w = np.where(net.rng.random((8, 4, 3, 3)) < 0.25, net.rng.integers(0, 256, (8, 4, 3, 3)), 77)
    y = net.node("ConvInteger", q, net.const(w, np.uint8), zero, net.const(77, np.uint8), pads=[1] * 4)
    found = inspect(net.model({"x": [1, 4, 6, 6]}, {y: TensorProto.INT32}))
    (layer,) = [row for row in found["layers"] if row["op"] == "ConvInteger"]
    assert (layer["shape"], layer["n_weights"], layer["nnz"]) == ([8, 4, 3, 3], 288, np.count_nonzero(w != 77))
    assert (layer["macs"], layer["bits"], layer["arithmetic"]) == (288 * 36, 8, "int8")


def test_inspect_marks_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handed over where it can be; named where it cannot."""
    from secateur.engine import inspect, session

    model, _ = two_activations(64)
    found = inspect(model)
    assert [row["kernel"] for row in found["layers"]] == ["onnxruntime"]
    assert found["totals"]["n_plain_loops"] == 0
    monkeypatch.setattr(session, "_onnxruntime_is_there", lambda: False)
    found = inspect(model)
    assert [row["kernel"] for row in found["layers"]] == ["matmul_integer_ref"]
    assert found["totals"]["n_plain_loops"] == 1
    assert found["layers"][0]["why"].startswith("plain loops: its second operand is no constant")


def test_onnx_is_the_definition() -> None:
    """The same sums as ONNX's reference evaluator, with zero points everywhere."""
    reference = pytest.importorskip("onnx.reference")
    net = Net(24)
    w, w_zero = net.rng.integers(0, 256, (4, 3, 3, 3)), net.rng.integers(0, 256, 4)
    y = net.node(
        "ConvInteger", "q", net.const(w, np.uint8), net.const(37, np.uint8), net.const(w_zero, np.uint8), pads=[1] * 4
    )
    model = bytes_model(net, {"q": (np.uint8, [1, 3, 6, 6])}, {y: TensorProto.INT32})
    x = net.rng.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    (want,) = reference.ReferenceEvaluator(onnx.load_model_from_string(model)).run(None, {"q": x})
    (got,) = InferenceSession(model).run(None, {"q": x})
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_array_equal(got[inner], want[inner])
