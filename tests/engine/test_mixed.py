"""Models with nodes the engine does not have: cut, handed over, listed, and right."""

import sys

import numpy as np
import onnx
import pytest

from engine.test_threads import in_child
from parity.engine_graphs import Net, tolerance
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession, inspect, isas
from secateur.engine.coverage import share
from secateur.errors import HandedOverWarning, MissingExtraError, UnsupportedError, UsageError


def sandwich(batch: int | str = 2) -> tuple[Net, bytes]:
    """Conv, then CumSum and a Sign-like detour that the engine does not have, then Gemm."""
    net = Net(np.random.default_rng(4))
    x = net.input((2, 3, 8, 8), declared=(batch, 3, 8, 8))
    y = net.node("Relu", net.node("Conv", x, net.weight(4, 3, 3, 3, density=0.3), net.weight(4), pads=[1] * 4))
    y = net.node("CumSum", y, net.const(np.int64(1)))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = net.node("Gemm", y, net.weight(5, 4), transB=1)
    return net, net.model(y)


def mixed(model: bytes, threads: int = 1) -> InferenceSession:
    with pytest.warns(HandedOverWarning, match="ONNX Runtime takes"):
        return InferenceSession(model, threads=threads)


@pytest.mark.parametrize("batch", [2, "n"])
def test_parts_agree_with_onnxruntime(batch: int | str) -> None:
    net, model = sandwich(batch)
    session = mixed(model)
    want = run_ort(model, net.feeds)
    got = session.run(None, net.feeds)
    assert np.max(np.abs(got[0] - want[0])) <= tolerance(run_ort, model, net.feeds, want)[0]
    assert [h["op"] for h in session.coverage["handed_over"]] == ["CumSum"]
    assert session.coverage["n_engine"] == session.coverage["n_nodes"] - 1
    per_example = {"engine": 4 * 27 * 64 + 20, "handed_over": 0}
    assert session.coverage["macs"] == {k: v * (2 if batch == 2 else 1) for k, v in per_example.items()}
    assert session.isa in isas()
    assert session.threads == 1
    kernels = [row["kernel"] for row in session.explain(batch=2, repeats=0)]
    assert kernels.count("onnxruntime") == 1
    assert kernels[0].startswith("conv_")
    assert kernels[-1].startswith("linear_")
    assert [o.name for o in session.get_outputs()] == [o.name for o in session.get_outputs()]
    assert session.get_inputs()[0].shape == [batch, 3, 8, 8]


def test_a_model_the_engine_covers_needs_nobody_and_warns_nobody() -> None:
    net = Net(np.random.default_rng(4))
    model = net.model(net.node("Gemm", net.input((2, 3)), net.weight(3, 4)))
    session = InferenceSession(model, threads=1)
    assert session.coverage == {
        "n_nodes": 1,
        "n_engine": 1,
        "planned": True,
        "macs": {"engine": 24, "handed_over": 0},
        "handed_over": [],
    }


def test_a_refusal_that_only_shapes_show() -> None:
    """A 3-D convolution: the operator is known, this use of it is not."""
    net = Net(np.random.default_rng(4))
    y = net.node("Conv", net.input((1, 2, 4, 4, 4)), net.weight(3, 2, 3, 3, 3))
    y = net.node("Gemm", net.node("Flatten", y), net.weight(24, 5))
    model = net.model(y)
    with pytest.raises(UnsupportedError) as info:
        InferenceSession(model, fallback=None)
    assert info.value.node
    session = mixed(model)
    want = run_ort(model, net.feeds)
    assert np.allclose(session.run(None, net.feeds)[0], want[0], atol=1e-5)
    assert session.coverage["handed_over"][0]["op"] == "Conv"
    assert session.coverage["macs"] == {"engine": 24 * 5, "handed_over": 3 * 2 * 27 * 8}


def test_parts_without_a_layer_stay_together() -> None:
    net = Net(np.random.default_rng(4))
    y = net.node("CumSum", net.node("Relu", net.input((2, 3))), net.const(np.int64(1)))
    y = net.node("Det", net.node("MatMul", net.input((3, 2)), net.node("Sigmoid", y)))
    model = net.model(y)
    session = mixed(model)
    why = {h["op"]: h["why"] for h in session.coverage["handed_over"]}
    assert "pay" in why["Relu"]
    assert "MatMul" not in why
    assert np.allclose(session.run(None, net.feeds)[0], run_ort(model, net.feeds)[0], rtol=1e-4, atol=1e-5)


def test_without_onnxruntime_the_nodes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="CumSum"):
        InferenceSession(sandwich()[1])


def test_wrong_feeds_are_named() -> None:
    net, model = sandwich()
    session = mixed(model)
    with pytest.raises(UsageError, match="missing"):
        session.run(None, {})
    with pytest.raises(UsageError, match="no output 'nobody'"):
        session.run(["nobody"], net.feeds)
    with pytest.raises(UsageError, match="fallback: got 'torch'"):
        InferenceSession(model, fallback="torch")


def test_all_refused_nodes_are_named_at_once() -> None:
    net = Net(np.random.default_rng(4))
    y = net.node("Det", net.node("CumSum", net.input((3, 3)), net.const(np.int64(1))))
    with pytest.raises(UnsupportedError, match=r"CumSum is not supported; nor are .*Det"):
        InferenceSession(net.model(y), fallback=None)


def three_dimensional(declared: tuple[int | str, ...] | None) -> tuple[Net, bytes]:
    net = Net(np.random.default_rng(4))
    y = net.node("Conv", net.input((1, 2, 4, 4, 4), declared=declared), net.weight(3, 2, 3, 3, 3))
    return net, net.model(net.node("Relu", y))


def test_a_refusal_behind_a_free_axis_is_known_at_opening() -> None:
    net, model = three_dimensional((1, 2, "d", 4, 4))
    session = mixed(model)
    assert session.coverage["n_engine"] == 0
    assert np.allclose(session.run(None, net.feeds)[0], run_ort(model, net.feeds)[0], atol=1e-5)
    with pytest.raises(UnsupportedError, match="Conv"):
        InferenceSession(model, threads=1, fallback=None)


def without_shapes(model: bytes) -> bytes:
    """The model with inputs of unknown rank: nothing can be planned before the first run."""
    proto = onnx.load_from_string(model)
    for value in proto.graph.input:
        value.type.tensor_type.ClearField("shape")
    return proto.SerializeToString()


def test_shapes_known_at_the_first_run_only() -> None:
    """A free middle axis: nothing is planned at load, the refusal comes with the first shapes."""
    net, declared = three_dimensional(None)
    model = without_shapes(declared)
    session = InferenceSession(model, threads=1)
    assert session.coverage["planned"] is False
    assert "before the first run" in share(session.coverage)
    with pytest.warns(HandedOverWarning, match="Conv"):
        got = session.run(None, net.feeds)
    assert np.allclose(got[0], run_ort(model, net.feeds)[0], atol=1e-5)
    assert session.run(None, net.feeds)[0].shape == got[0].shape
    with pytest.raises(UnsupportedError, match="Conv"):
        InferenceSession(model, threads=1, fallback=None).run(None, net.feeds)


def test_an_opset_the_engine_does_not_read_goes_over_as_a_whole() -> None:
    net = Net(np.random.default_rng(4), opset=24)
    model = net.model(net.node("Relu", net.node("Gemm", net.input((2, 3)), net.weight(3, 4), net.weight(4))))
    with pytest.raises(UnsupportedError, match="opset 24"):
        InferenceSession(model, fallback=None)
    session = mixed(model)
    assert session.coverage["n_engine"] == 0
    assert np.allclose(session.run(None, net.feeds)[0], run_ort(model, net.feeds)[0], rtol=1e-5)


def test_a_forked_child_makes_its_own_sessions() -> None:
    net, model = sandwich()
    session = mixed(model, threads=2)
    (want,) = session.run(None, net.feeds)
    assert in_child(lambda: np.array_equal(session.run(None, net.feeds)[0], want)) is True


def test_inspect_shows_what_goes_where() -> None:
    found = inspect(sandwich()[1])
    kernels = {row["op"]: row["kernel"] for row in found["layers"]}
    assert kernels["CumSum"] == "onnxruntime"
    assert kernels["Conv"].startswith("conv_")
    assert kernels["Gemm"].startswith("linear_")
    assert "CumSum is not supported" in found["refused"]
    assert [h["op"] for h in found["coverage"]["handed_over"]] == ["CumSum"]


def test_inspect_without_onnxruntime_goes_by_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = inspect(sandwich()[1])
    assert [h["op"] for h in found["coverage"]["handed_over"]] == ["CumSum"]
    assert found["coverage"]["macs"] == {"engine": None, "handed_over": None}
