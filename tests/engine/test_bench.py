"""bench: runtimes side by side, checked in the same run; missing ones named."""

import sys

import numpy as np
import pytest

from parity.engine_graphs import Net
from parity.make_exporters import OLD
from secateur.engine import bench
from secateur.engine.bench import failed, rows
from secateur.engine.quantized import static_int8
from secateur.errors import HandedOverWarning, UsageError
from secateur.formats import pack


def net(density: float = 1.0) -> bytes:
    n = Net(np.random.default_rng(0))
    x = n.input((1, 16), declared=("n", 16))
    y = n.node("Relu", n.node("Gemm", x, n.weight(16, 32, density=density), n.weight(32)))
    return n.model(n.node("Gemm", y, n.weight(32, 5, density=density)))


def test_peers_and_dense_beside() -> None:
    data = np.random.default_rng(1).standard_normal((80, 16)).astype(np.float32)
    found = bench(
        pack(net(0.1)), against=("onnxruntime", "torch"), dense=net(), inputs=data, batch=2, seconds=0.05, seed=3
    )
    keys = {(r["runtime"], r["model"]) for r in found["runs"]}
    assert keys == {("engine", "model"), ("engine", "dense"), ("onnxruntime", "model"), ("onnxruntime", "dense")}
    assert "torch cannot run an .onnx" in found["skipped"]["torch"]
    assert all(c["agree"] for c in found["checks"])
    assert len(found["checks"]) == 2
    assert found["n_inputs"] == 40
    assert found["inputs"] == "given"
    assert {tuple(r["of"]) for r in found["ratios"]} == keys - {("engine", "model")}
    for run in found["runs"]:
        ms = run["latency_ms"]
        assert 0 < ms["p10"] <= ms["median"] <= ms["p90"]
        assert found["latency_ms"][run["model"]][run["runtime"]] == ms
    assert found["cpu"]
    assert found["isa"]
    columns, body, footer = rows(found)
    assert all(len(row) == len(columns) for row in body)
    assert "torch skipped" in footer
    assert "40 given inputs" in footer


def test_inputs_of_another_shape_are_named_before_any_peer_sees_them() -> None:
    with pytest.raises(UsageError, match=r"has shape \[1, 17\], expected \[n, 16\]"):
        bench(net(), against=("openvino", "onnxruntime"), inputs=np.zeros((32, 17), np.float32), seconds=0.05)


def test_torch_and_openvino_take_part() -> None:
    torch = pytest.importorskip("torch")
    w = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    n = Net(np.random.default_rng(0))
    model = n.model(n.node("Gemm", n.input((1, 16), declared=("n", 16)), n.const(w), transB=1))
    module = torch.nn.Linear(16, 5, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(w))
    threads = torch.get_num_threads()
    found = bench(model, against=("openvino", "torch"), module=module, seconds=0.05)
    assert torch.get_num_threads() == threads
    assert {c["runtime"]: c["agree"] for c in found["checks"]} == {"openvino": True, "torch": True}
    assert found["inputs"] == "random"
    assert found["n_inputs"] >= 32


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = bench(net(), against=("openvino",), seconds=0.05)
    assert "not installed" in found["skipped"]["openvino"]
    assert "pip install" in found["skipped"]["openvino"]
    assert [r["runtime"] for r in found["runs"]] == ["engine"]


def test_a_peer_that_does_not_load_the_model_is_named() -> None:
    """Opset 6, of which ONNX Runtime has no Add."""
    found = bench(OLD["caffe2_squeeze"][0](6), against=("onnxruntime",), seconds=0.05, int8=False)
    assert "ONNX Runtime does not take the model" in found["skipped"]["onnxruntime"]
    assert [(r["runtime"], r["model"]) for r in found["runs"]] == [("engine", "model")]


def test_a_wrong_result_is_seen() -> None:
    torch = pytest.importorskip("torch")
    n = Net(np.random.default_rng(0))
    model = n.model(n.node("Gemm", n.input((1, 16)), n.weight(5, 16), transB=1))
    found = bench(model, against=("torch",), module=torch.nn.Linear(16, 5), seconds=0.05)
    assert found["checks"][0]["agree"] is False
    assert "DIFFERS" in rows(found)[1][1][-1]
    assert failed(found)[0].startswith("torch on model: largest difference ")


def conv() -> bytes:
    n = Net(np.random.default_rng(0))
    y = n.node("Conv", n.input((1, 3, 12, 12), declared=("n", 3, 12, 12)), n.weight(8, 3, 3, 3), n.weight(8))
    y = n.node("Flatten", n.node("GlobalAveragePool", n.node("Relu", y)))
    return n.model(n.node("Gemm", y, n.weight(5, 8), transB=1))


def test_int8_stands_beside_and_is_judged_by_its_distance_from_float32() -> None:
    found = bench(conv(), against=("onnxruntime",), dense=conv(), int8=True, seconds=0.05)
    assert {(r["runtime"], r["model"]) for r in found["runs"]} == {
        (runtime, model) for runtime in ("engine", "onnxruntime") for model in ("model", "dense", "dense_int8")
    }
    assert found["calibration"] == "minimum and maximum over 16 random inputs"
    assert any("16 random inputs" in line for line in found["compared"])
    check = next(c for c in found["checks"] if c["model"] == "dense_int8")
    assert check["tolerance"] is None
    assert 0 < check["engine_error"] < 0.1
    assert check["agree"] is True
    # Without a dense net the file's own net is quantized, and what that means is said.
    found = bench(conv(), against=(), int8=True, seconds=0.05)
    assert {r["model"] for r in found["runs"]} == {"model", "model_int8"}
    assert found["compared"][0].startswith("no dense net was given")


def test_a_file_of_integers_is_not_quantized_again_and_is_judged_against_its_float_form() -> None:
    rng = np.random.default_rng(0)
    data = static_int8(conv(), [{"x1": rng.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(4)])
    found = bench(data, against=("onnxruntime",), int8=True, seconds=0.05)
    assert "integers already" in found["skipped"]["model_int8"]
    (check,) = found["checks"]
    assert check["agree"] is True
    assert 0 < check["engine_error"] < 0.1


def test_what_another_runtime_does_for_the_engine_is_said() -> None:
    n = Net(np.random.default_rng(0))
    y = n.node("CumSum", n.input((1, 8)), n.const(np.int64(1)))
    with pytest.warns(HandedOverWarning):
        found = bench(n.model(n.node("Gemm", y, n.weight(8, 4))), against=("onnxruntime",), seconds=0.05)
    assert found["coverage"]["model"]["n_engine"] == 1
    assert any(line.startswith("model: 1 of 2 nodes") and "CumSum" in line for line in found["compared"])


def test_wrong_arguments() -> None:
    with pytest.raises(UsageError, match="tensorrt unknown"):
        bench(net(), against=("tensorrt",))
    with pytest.raises(UsageError, match="positive"):
        bench(net(), threads=0)
    with pytest.raises(UsageError, match="3 examples are fewer than the batch of 8"):
        bench(net(), inputs=np.zeros((3, 16), np.float32), batch=8)
    with pytest.raises(UsageError, match="the model has 'x1'"):
        bench(net(), inputs={"wrong": np.zeros((64, 16), np.float32)})
    n = Net(np.random.default_rng(0))
    fixed = n.model(n.node("Relu", n.input((1, 4))))
    with pytest.raises(UsageError, match="pass batch=1"):
        bench(fixed, batch=2)
