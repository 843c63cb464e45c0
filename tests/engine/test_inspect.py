"""inspect: density, values, structure, bytes, kernels; for ONNX and .sct alike."""

from pathlib import Path

import numpy as np
import pytest

from parity.engine_graphs import Net
from secateur.engine import inspect
from secateur.errors import FormatError, UsageError
from secateur.formats import pack, sections


def net() -> bytes:
    rng = np.random.default_rng(0)
    n = Net(rng)
    x = n.input((1, 4, 8, 8), declared=("n", 4, 8, 8))
    w1 = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    w1[[2, 5]] = 0
    w2 = (rng.integers(-7, 8, (6, 8, 1, 1)) * np.float32(0.125)).astype(np.float32)
    w3 = np.zeros((10, 6), np.float32)
    w3[:, [0, 4]] = rng.choice(np.float32([0.5, -1, 2]), (10, 2))
    y = n.node("Relu", n.node("Conv", x, n.const(w1, "first"), n.weight(8)))
    y = n.node("Conv", y, n.const(w2, "second"))
    y = n.node("Flatten", n.node("GlobalAveragePool", y), axis=1)
    return n.model(n.node("Gemm", y, n.const(w3, "third"), transB=1))


def by_weights(found: dict[str, object]) -> list[dict[str, object]]:
    return [row for row in found["layers"] if row["n_weights"]]  # type: ignore[attr-defined]


def test_layers_of_an_onnx_file() -> None:
    data = net()
    found = inspect(data)
    assert found["format"] == "onnx"
    assert found["nbytes"] == len(data)
    assert found["opset"] == 17
    assert found["refused"] is None
    first, second, third = by_weights(found)
    assert (first["op"], first["shape"], first["n_weights"]) == ("Conv", [8, 4, 3, 3], 288)
    assert first["nnz"] == 216
    assert first["density"] == pytest.approx(0.75)
    assert "2 of 8 outputs zero" in first["structure"]  # type: ignore[operator]
    assert first["macs"] == 288 * 36
    assert first["macs_nonzero"] == 216 * 36
    assert first["nbytes"] == 288 * 4 + 8 * 4
    assert str(first["kernel"]).startswith("conv_")
    assert any(str(s).startswith("uniform, 15 levels, step 0.125") for s in second["structure"])  # type: ignore[attr-defined]
    assert third["n_values"] == 3
    assert third["bits"] == 2
    assert "4 of 6 inputs unused" in third["structure"]  # type: ignore[operator]
    totals = found["totals"]
    assert totals["n_weights"] == 288 + 48 + 60
    assert totals["constants_nbytes"] + totals["other_nbytes"] == totals["nbytes"] == len(data)


def test_sct_tells_the_same_and_its_own_bytes() -> None:
    data = net()
    packed = pack(data)
    a, b = inspect(data), inspect(packed)
    assert b["format"] == "sct"
    assert b["nbytes"] == len(packed)
    keys = ("op", "shape", "nnz", "n_values", "bits", "structure", "macs", "kernel")
    assert [[row[k] for k in keys] for row in by_weights(a)] == [[row[k] for k in keys] for row in by_weights(b)]
    assert all(row["bound_nbytes"] is None for row in a["layers"])
    bounds = {s.name: s.bound_nbytes for s in sections(packed) if s.kind == "tensor"}
    assert sum(row["bound_nbytes"] for row in b["layers"]) == pytest.approx(sum(bounds.values()), abs=0.05)
    for row in b["layers"]:  # DESIGN's size law, two constants a layer at most
        assert row["nbytes"] <= 1.03 * row["bound_nbytes"] + 2 * 32
    assert b["totals"]["constants_nbytes"] < 0.6 * a["totals"]["constants_nbytes"]


def test_n_of_m_and_blocks_are_found() -> None:
    rng = np.random.default_rng(3)
    n = Net(rng)
    x = n.input((1, 16))
    w = rng.standard_normal((8, 16)).astype(np.float32)
    for row in w.reshape(-1, 4):
        row[rng.choice(4, 2, replace=False)] = 0
    blocks = rng.standard_normal((8, 8)).astype(np.float32)
    blocks[0:4, [0, 2, 5]] = 0
    blocks[4:8, [1, 2, 7]] = 0
    y = n.node("Gemm", x, n.const(w), transB=1)
    found = inspect(n.model(n.node("Gemm", n.node("Relu", y), n.const(blocks), transB=1)))
    first, second = by_weights(found)
    assert first["structure"] == ["2:4"]
    assert "4x1 blocks" in second["structure"]  # type: ignore[operator]


def test_quantized_weights_count_their_stored_bytes() -> None:
    n = Net(np.random.default_rng(0))
    q = n.const(np.random.default_rng(1).integers(-127, 128, (64, 32)).astype(np.int8))
    w = n.node("DequantizeLinear", q, n.const(np.float32(0.01)))
    found = inspect(n.model(n.node("Gemm", n.input((1, 32)), w, transB=1)))
    (row,) = by_weights(found)
    assert row["nbytes"] == 64 * 32 + 4
    assert row["bits"] == 8
    assert any("quantized" in str(s) for s in row["structure"])  # type: ignore[attr-defined]


def test_a_model_the_engine_refuses_is_still_described() -> None:
    n = Net(np.random.default_rng(0))
    y = n.node("Gemm", n.input((1, 8)), n.weight(8, 4))
    found = inspect(n.model(n.node("Det", n.node("Reshape", y, n.const(np.array([2, 2], np.int64))))))
    assert "Det" in str(found["refused"])
    (row,) = by_weights(found)
    assert row["n_weights"] == 32
    assert row["kernel"].startswith("linear_")  # Det alone is handed over


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        inspect(tmp_path / "nothing.onnx")
    with pytest.raises(FormatError, match="ONNX"):
        inspect(b"not a model at all, really")
    with pytest.raises(UsageError, match="batch"):
        inspect(net(), batch=0)
