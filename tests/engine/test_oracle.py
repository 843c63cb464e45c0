"""Int8 results are judged by who computes them as the file says, not by a runtime whose products may saturate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from parity.quant_graphs import F, Net, conv_sums, rint
from secateur.engine import InferenceSession, agreement, bench
from secateur.engine import oracle as oracles
from secateur.engine.oracle import oracle
from secateur.native import _native
from secateur.proof.agreement import outputs_agree


def qdq(seed: int = 0) -> tuple[bytes, np.ndarray]:
    """Three layers whose pairs of products leave 16 bits: activations near 255, weights near 127."""
    net = Net(seed)
    grid = (F(0.01), 0)
    y = net.quantize("x", *grid)
    for c in (8, 12, 12):
        w = net.rng.integers(90, 128, (12, c, 3, 3)) * net.rng.choice([-1, 1], (12, c, 1, 1))
        wd = net.node("DequantizeLinear", net.const(w, np.int8), net.const(F(0.002), F), net.const(0, np.int8))
        conv = net.node("Conv", net.dequantize(y, *grid), wd, pads=[1] * 4)
        grid = (F(0.02), 100)
        y = net.quantize(conv, *grid)
    proto = onnx.load_model_from_string(net.model({"x": [1, 8, 9, 9]}, {net.dequantize(y, *grid): TensorProto.FLOAT}))
    proto.opset_import[0].version, proto.ir_version = 21, 10  # the evaluator has no older DequantizeLinear
    return proto.SerializeToString(), net.rng.uniform(1.5, 2.55, (1, 8, 9, 9)).astype(F)


def integers() -> tuple[bytes, np.ndarray, np.ndarray]:
    """One MatMulInteger of activations at 255 and weights at 127, and its exact sums."""
    net = Net(1)
    w = np.full((16, 5), 127)
    q = net.quantize("x", F(0.01), 0)
    zero = net.const(0, np.uint8)
    y = net.node("MatMulInteger", q, net.const(w, np.int8), zero)
    x = np.full((2, 16), 2.55, F)
    return net.model({"x": [2, 16]}, {y: TensorProto.INT32}), x, np.full((2, 5), 16 * 255 * 127)


def saturating(model: bytes) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """A runtime whose first layer adds two products in 16 bits, as `pmaddubsw` does; the others are exact."""
    proto = onnx.load_model_from_string(model)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    first = proto.graph.node[3].output[0]
    del proto.graph.node[:4], proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info(first, TensorProto.FLOAT, [1, 12, 9, 9]))
    w = next(v for v in constants.values() if v.dtype == np.int8 and v.ndim == 4).astype(int)

    def call(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        q = np.clip(rint(feeds["x"] / F(0.01)), 0, 255)
        total = 0
        for c in range(0, 8, 2):
            pair = conv_sums(q[:, c : c + 2], w[:, c : c + 2], 1, 1, 1, 1)
            total = total + np.clip(pair, -32768, 32767)
        y = (total * 0.01 * 0.002).astype(F)
        return list(ReferenceEvaluator(proto).run(None, {first: y}))

    return call


def test_pairs_are_judged_by_float32_layers_between_integers() -> None:
    model, x = qdq()
    found = oracle(model)
    assert found is not None
    assert found.name == oracles.UNOPTIMISED
    (want,) = ReferenceEvaluator(onnx.load_model_from_string(model)).run(None, {"x": x})
    (got,) = found.call({"x": x})
    assert np.mean(got != want) < 0.02  # halves
    assert np.max(np.abs(got - want)) <= 0.021


def test_integer_products_need_a_cpu_that_does_not_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, want = integers()
    for isas, name in [
        (("ref", "avx2", "avx512"), oracles.REFERENCE),
        (("ref", "avx2", "vnni"), oracles.EXACT_PRODUCTS),
    ]:
        if name == oracles.EXACT_PRODUCTS and "vnni" not in _native.isas():
            continue
        with monkeypatch.context() as patch:
            patch.setattr(_native, "isas", lambda known=isas: list(known))
            found = oracle(model)
        assert found is not None
        assert found.name == name
        np.testing.assert_array_equal(found.call({"x": x})[0], want)


def test_without_onnx_and_onnxruntime_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = qdq()
    for name in ("onnx", "onnx.reference", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert oracle(model) is None
    call = InferenceSession(model, threads=1, fallback=None)

    def engine(feeds: Any) -> Any:
        return call.run(None, feeds)

    calls = {("engine", "model"): engine, ("peer", "model"): engine}
    (check,) = agreement.compare(calls, {"model": model}, [{"x": x}])
    assert (check["oracle"], check["agree"]) == ("nobody", None)


def test_a_peer_that_saturates_does_not_judge_the_engine() -> None:
    model, x = qdq()
    session = InferenceSession(model, threads=1)

    def engine(feeds: Any) -> Any:
        return session.run(None, feeds)

    calls = {("engine", "model"): engine, ("peer", "model"): saturating(model)}
    (check,) = agreement.compare(calls, {"model": model}, [{"x": x}] * 2)
    assert check["oracle"].startswith(oracles.UNOPTIMISED)
    assert check["agree"]
    assert check["engine_apart"] < 0.02
    assert check["peer_apart"] > 0.2
    # The other way round it is found.
    calls = {("engine", "model"): saturating(model), ("peer", "model"): engine}
    (check,) = agreement.compare(calls, {"model": model}, [{"x": x}] * 2)
    assert check["agree"] is False


def test_the_table_says_who_judged() -> None:
    model, _ = qdq()
    result = bench(model, against=["onnxruntime"], seconds=0.05)
    (check,) = result["checks"]
    assert check["oracle"].startswith(oracles.UNOPTIMISED)
    from secateur.engine.bench import rows

    _, _, notes = rows(result)
    assert f"judged by {oracles.UNOPTIMISED}" in notes
    assert "from the oracle" in notes


def test_verify_compares_integers_with_the_oracle() -> None:
    from secateur import formats

    model, x = qdq()
    found = outputs_agree(formats.pack(model), model, None, {"x": x})
    assert found["oracle"] == oracles.UNOPTIMISED
    net = Net(2)
    y = net.node("MatMul", "x", net.const(net.rng.standard_normal((4, 3)), F))
    plain = net.model({"x": [2, 4]}, {y: TensorProto.FLOAT})
    found = outputs_agree(formats.pack(plain), plain, None, {"x": np.ones((2, 4), F)})
    assert found["oracle"] == "ONNX Runtime"
    assert found["agree"]
