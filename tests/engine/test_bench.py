"""bench: runtimes side by side, checked in the same run; missing ones named."""

import sys

import numpy as np
import pytest

from parity.engine_graphs import Net
from secateur.engine import bench
from secateur.engine.bench import rows
from secateur.errors import UsageError
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
    pytest.importorskip("openvino")
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


def test_a_wrong_result_is_seen() -> None:
    torch = pytest.importorskip("torch")
    n = Net(np.random.default_rng(0))
    model = n.model(n.node("Gemm", n.input((1, 16)), n.weight(5, 16), transB=1))
    found = bench(model, against=("torch",), module=torch.nn.Linear(16, 5), seconds=0.05)
    assert found["checks"][0]["agree"] is False
    assert "DIFFERS" in rows(found)[1][1][-1]


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
