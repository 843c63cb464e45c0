"""ONNX Runtime's own operators (com.microsoft), as its optimizer and its exporters write them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from secateur.engine import InferenceSession

from .engine_graphs import Net, tolerance
from .test_engine_random import run_ort

TABLE = Path(__file__).parents[2] / "engine/plan/lower/operators_microsoft.inc"
MS = {"domain": "com.microsoft"}
Build = Callable[[Net], str]
CASES: dict[str, Build] = {}


def case(build: Build) -> Build:
    CASES[build.__name__] = build
    return build


@case
def gelu(net: Net) -> str:
    return net.node("Gelu", net.input((3, 50)), **MS)


@case
def simplified_layer_normalization(net: Net) -> str:
    # In the default domain, though it is no operator of ONNX.
    return net.node("SimplifiedLayerNormalization", net.input((2, 5, 24)), net.weight(24, scale=1.0), epsilon=1e-3)


@case
def skip_layer_normalization(net: Net) -> str:
    parameters = [net.weight(24, scale=1.0) for _ in range(2)]
    return net.node("SkipLayerNormalization", net.input((2, 5, 24)), net.input((2, 5, 24)), *parameters, **MS)


@case
def skip_layer_normalization_with_bias(net: Net) -> str:
    parameters = [net.weight(24, scale=1.0) for _ in range(3)]
    return net.node("SkipLayerNormalization", net.input((2, 5, 24)), net.input((2, 5, 24)), *parameters, **MS)


@case
def skip_simplified_layer_normalization(net: Net) -> str:
    x, skip, scale = net.input((2, 5, 24)), net.input((2, 5, 24)), net.weight(24, scale=1.0)
    return net.node("SkipSimplifiedLayerNormalization", x, skip, scale, **MS)


@case
def multi_head_attention(net: Net) -> str:
    q, k, v = net.input((2, 7, 24)), net.input((2, 11, 24)), net.input((2, 11, 24))
    return net.node("MultiHeadAttention", q, k, v, num_heads=4, **MS)


@case
def multi_head_attention_with_scale(net: Net) -> str:
    q, k, v = (net.input((1, 9, 16)) for _ in range(3))
    return net.node("MultiHeadAttention", q, k, v, num_heads=2, scale=0.2, **MS)


def model_of(name: str, opset: int) -> tuple[bytes, dict[str, np.ndarray]]:
    net = Net(np.random.default_rng(6), opset=opset)
    output = CASES[name](net)
    graph = helper.make_graph(
        net.nodes, "g", net.inputs, [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], net.constants
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()), net.feeds


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("opset", [14, 17])
def test_operator_agrees_with_onnxruntime(name: str, opset: int) -> None:
    model, feeds = model_of(name, opset)
    want = run_ort(model, feeds)
    got = InferenceSession(model, threads=1, fallback=None).run(None, feeds)
    assert got[0].shape == want[0].shape
    assert np.max(np.abs(got[0] - want[0])) <= tolerance(run_ort, model, feeds, want)[0]


def test_every_operator_of_the_domain_has_a_case() -> None:
    claimed = set(re.findall(r"SECATEUR_OP\((\w+),", TABLE.read_text()))
    tested = {n.op_type for name in CASES for n in onnx.load_from_string(model_of(name, 17)[0]).graph.node if n.domain}
    # The quantized ones: test_engine_int8.py and test_engine_dynamic.py.
    linear = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul", "Sigmoid")
    quantized = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", *(f"QLinear{op}" for op in linear)}
    assert claimed == tested | quantized
