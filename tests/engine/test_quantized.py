"""Static int8 made for comparison, and the float32 form that an int8 model stands for."""

import sys

import numpy as np
import onnx
import pytest

from parity.engine_graphs import Net
from parity.make_exporters import OLD
from parity.test_engine_exporters import feeds_of
from secateur.engine.agreement import relative_error
from secateur.engine.peers import Unavailable
from secateur.engine.quantized import computes_in_integers, float_form, static_int8
from secateur.shell import runtimes

Feeds = dict[str, np.ndarray]


def run(model: bytes, feeds: list[Feeds]) -> list[list[np.ndarray]]:
    ort = runtimes.onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [session.run(None, f) for f in feeds]


def normed() -> tuple[bytes, list[Feeds]]:
    """Conv, norm, Relu, twice, and a classifier."""
    net = Net(np.random.default_rng(2))
    x = net.input((1, 3, 10, 10))
    y = x
    for c in (3, 8):
        y = net.node("Conv", y, net.weight(8, c, 3, 3, scale=0.3))
        variance = net.const(np.linspace(0.5, 2, 8).astype(np.float32))
        y = net.node("BatchNormalization", y, *(net.weight(8, scale=1.0) for _ in range(3)), variance)
        y = net.node("Relu", y)
    y = net.node("Gemm", net.node("Flatten", y), net.weight(5, 288, scale=0.1), transB=1)
    rng = np.random.default_rng(3)
    return net.model(y), [{x: rng.standard_normal((1, 3, 10, 10)).astype(np.float32)} for _ in range(8)]


@pytest.mark.parametrize(("name", "opset"), [("torch_upsample", 7), ("torch_upsample", 9), ("keras2onnx_conv", 11)])
def test_old_opsets_are_brought_to_one_with_scales_per_channel(name: str, opset: int) -> None:
    model = OLD[name][0](opset)
    feeds = [feeds_of(model, 1) for _ in range(4)]
    made = static_int8(model, feeds)
    assert computes_in_integers(made)
    assert len(onnx.load_model_from_string(made).graph.input) == 1
    assert relative_error(run(made, feeds), run(model, feeds)) < 0.05


def test_norms_are_folded_activations_u8_and_weights_s8_per_channel() -> None:
    model, feeds = normed()
    made = static_int8(model, feeds)
    net = onnx.load_model_from_string(made)
    ops = [n.op_type for n in net.graph.node]
    assert "BatchNormalization" not in ops
    assert ops.count("Conv") == 2
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in net.graph.initializer}
    maker = {o: n for n in net.graph.node for o in n.output}
    for node in net.graph.node:
        if node.op_type == "Conv":
            values, scale, _ = (constants[name] for name in maker[node.input[1]].input)
            assert values.dtype == np.int8
            assert scale.shape == (8,)
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
    assert computes_in_integers(made)
    assert not computes_in_integers(model)
    assert relative_error(run(made, feeds), run(model, feeds)) < 0.05


def test_the_float_form_differs_from_float32_by_the_weights_alone() -> None:
    model, feeds = normed()
    made = static_int8(model, feeds)
    plain = float_form(made)
    assert plain is not None
    onnx.checker.check_model(plain)
    assert not computes_in_integers(plain)
    exact, quantized, float32 = run(plain, feeds), run(made, feeds), run(model, feeds)
    # Weights are off by 1/254 of a channel's largest at most, about 1/100 of a typical one.
    assert 0 < relative_error(exact, float32) < 0.03
    assert relative_error(exact, float32) < relative_error(quantized, float32)
    assert relative_error(quantized, exact) < relative_error(quantized, float32)


def test_forms_without_pairs_have_no_float_form() -> None:
    net = Net(np.random.default_rng(0))
    scale, zero = net.const(np.float32(0.1)), net.const(np.uint8(3))
    q = net.node("QuantizeLinear", net.input((2, 3)), scale, zero)
    weight = net.const(np.ones((3, 4), np.int8))
    y = net.node("MatMulInteger", q, weight, zero)
    model = net.model(net.node("Cast", y, to=1))
    assert computes_in_integers(model)
    assert float_form(model) is None


def test_a_transformers_own_products_stay_in_float32() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input((1, 4, 8))
    q, k = (net.node("MatMul", x, net.weight(8, 8, scale=0.3)) for _ in range(2))
    score = net.node("Softmax", net.node("MatMul", q, net.node("Transpose", k, perm=[0, 2, 1])), axis=-1)
    made = onnx.load_model_from_string(static_int8(net.model(net.node("MatMul", score, q)), [net.feeds]))
    maker = {o: n for n in made.graph.node for o in n.output}
    products = [n for n in made.graph.node if n.op_type == "MatMul"]
    dequantized = [
        all(maker.get(i) is not None and maker[i].op_type == "DequantizeLinear" for i in n.input) for n in products
    ]
    assert sorted(dequantized) == [False, False, True, True]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = normed()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Unavailable, match=missing):
        static_int8(model, feeds)


def test_a_model_the_quantizer_refuses_is_said() -> None:
    with pytest.raises(Unavailable, match="does not quantize"):
        static_int8(b"not a model", [])
