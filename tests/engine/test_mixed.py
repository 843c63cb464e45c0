"""Models with nodes the engine does not have: cut, handed over, listed, and right."""

import sys

import numpy as np
import pytest

from parity.engine_graphs import Net, tolerance
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession, MixedSession
from secateur.errors import MissingExtraError, UnsupportedError, UsageError


def sandwich(batch: int | str = 2) -> tuple[Net, bytes]:
    """Conv, then CumSum and a Sign-like detour that the engine does not have, then Gemm."""
    net = Net(np.random.default_rng(4))
    x = net.input((2, 3, 8, 8), declared=(batch, 3, 8, 8))
    y = net.node("Relu", net.node("Conv", x, net.weight(4, 3, 3, 3, density=0.3), net.weight(4), pads=[1] * 4))
    y = net.node("CumSum", y, net.const(np.int64(1)))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = net.node("Gemm", y, net.weight(5, 4), transB=1)
    return net, net.model(y)


@pytest.mark.parametrize("batch", [2, "n"])
def test_parts_agree_with_onnxruntime(batch: int | str) -> None:
    net, model = sandwich(batch)
    session = MixedSession(model, threads=1)
    want = run_ort(model, net.feeds)
    got = session.run(None, net.feeds)
    assert np.max(np.abs(got[0] - want[0])) <= tolerance(run_ort, model, net.feeds, want)[0]
    assert [h["op"] for h in session.coverage["handed_over"]] == ["CumSum"]
    assert session.coverage["n_engine"] == session.coverage["n_nodes"] - 1
    kernels = [row["kernel"] for row in session.explain(batch=2, repeats=0)]
    assert kernels.count("onnxruntime") == 1
    assert kernels[0].startswith("conv_")
    assert kernels[-1].startswith("linear_")
    assert [o.name for o in session.get_outputs()] == [o.name for o in session.get_outputs()]
    assert session.get_inputs()[0].shape == [batch, 3, 8, 8]


def test_a_model_the_engine_covers_is_one_part() -> None:
    net = Net(np.random.default_rng(4))
    model = net.model(net.node("Gemm", net.input((2, 3)), net.weight(3, 4)))
    session = MixedSession(model, threads=1)
    assert session.coverage == {"n_nodes": 1, "n_engine": 1, "handed_over": []}
    assert np.array_equal(session.run(None, net.feeds)[0], InferenceSession(model, threads=1).run(None, net.feeds)[0])


def test_a_refusal_that_only_shapes_show() -> None:
    """A 3-D convolution: the operator is known, this use of it is not."""
    net = Net(np.random.default_rng(4))
    y = net.node("Conv", net.input((1, 2, 4, 4, 4)), net.weight(3, 2, 3, 3, 3))
    y = net.node("Gemm", net.node("Flatten", y), net.weight(24, 5))
    model = net.model(y)
    with pytest.raises(UnsupportedError) as info:
        InferenceSession(model)
    assert info.value.node
    session = MixedSession(model, threads=1)
    want = run_ort(model, net.feeds)
    assert np.allclose(session.run(None, net.feeds)[0], want[0], atol=1e-5)
    assert session.coverage["handed_over"][0]["op"] == "Conv"


def test_parts_without_a_layer_stay_together() -> None:
    net = Net(np.random.default_rng(4))
    y = net.node("CumSum", net.node("Relu", net.input((2, 3))), net.const(np.int64(1)))
    y = net.node("Det", net.node("MatMul", net.input((3, 2)), net.node("Sigmoid", y)))
    model = net.model(y)
    session = MixedSession(model, threads=1)
    why = {h["op"]: h["why"] for h in session.coverage["handed_over"]}
    assert "pay" in why["Relu"]
    assert "MatMul" not in why
    assert np.allclose(session.run(None, net.feeds)[0], run_ort(model, net.feeds)[0], rtol=1e-4, atol=1e-5)


def test_without_onnxruntime_the_nodes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="CumSum"):
        MixedSession(sandwich()[1])


def test_wrong_feeds_are_named() -> None:
    net, model = sandwich()
    with pytest.raises(UsageError, match="missing"):
        MixedSession(model).run(None, {})
    with pytest.raises(UsageError, match="no output 'nobody'"):
        MixedSession(model).run(["nobody"], net.feeds)


def test_all_refused_nodes_are_named_at_once() -> None:
    net = Net(np.random.default_rng(4))
    y = net.node("Det", net.node("CumSum", net.input((3, 3)), net.const(np.int64(1))))
    with pytest.raises(UnsupportedError, match=r"CumSum is not supported; nor are .*Det"):
        InferenceSession(net.model(y))
