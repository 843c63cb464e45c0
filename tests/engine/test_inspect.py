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


@pytest.mark.parametrize(
    ("rows", "cols", "found"), [(2, 1, "2x1"), (4, 1, "4x1"), (8, 1, "8x1"), (16, 1, "16x1"), (1, 4, "1x4")]
)
def test_blocks_are_named_by_their_outputs_and_inputs(rows: int, cols: int, found: str) -> None:
    rng = np.random.default_rng(rows)
    kept = np.zeros((32 // rows, 32 // cols), bool)
    kept[rng.integers(0, len(kept), kept.shape[1]), np.arange(kept.shape[1])] = True
    kept[np.arange(len(kept)), np.arange(len(kept)) % kept.shape[1]] = True
    w = rng.standard_normal((32, 32)).astype(np.float32) * np.kron(kept, np.ones((rows, cols)))
    n = Net(rng)
    first, second = by_weights(
        inspect(
            n.model(
                n.node(
                    "Conv",
                    n.node("Conv", n.input((1, 32, 3, 3)), n.const(w.astype(np.float32).reshape(32, 32, 1, 1))),
                    n.weight(8, 32, 1, 1),
                )
            )
        )
    )
    assert f"{found} blocks" in first["structure"]  # type: ignore[operator]
    assert not any("blocks" in str(s) for s in second["structure"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{}, {"dilations": [2, 2]}], ids=["by phases", "spread"])
def test_transposed_convolutions_are_counted_by_their_definition(options: dict[str, list[int]]) -> None:
    """Every weight once for each cell of the input, whatever the engine makes of it; the second output is empty."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 6, 3, 3)).astype(np.float32)
    w[:, 1] = 0
    w[0, 2] = 0
    n = Net(rng)
    y = n.node("ConvTranspose", n.input((2, 4, 5, 7)), n.const(w), strides=[2, 2], **options)
    (row,) = by_weights(inspect(n.model(y), batch=2))
    assert (row["op"], row["shape"], row["n_weights"], row["nnz"]) == ("ConvTranspose", [4, 6, 3, 3], 216, 171)
    assert (row["macs"], row["macs_nonzero"]) == (216 * 70, 171 * 70)
    assert {"1 of 6 outputs zero", "5 of 24 kernels empty"} <= set(row["structure"])  # type: ignore[call-overload]


def test_what_the_kernel_does_not_use_is_stored_only() -> None:
    """Eight patterns run weight by weight; columns of all filters and empty inputs are skipped."""
    rng = np.random.default_rng(0)
    library = [rng.permutation(9) < 4 for _ in range(8)]
    w = rng.standard_normal((16, 16, 9)).astype(np.float32)
    patterned = np.where(np.array(library)[rng.integers(0, 8, (16, 16))], w, 0).astype(np.float32)
    columns = np.where(rng.random((1, 16, 9)) < 0.2, w, 0).astype(np.float32)
    n = Net(rng)
    y = n.node("Conv", n.input((1, 16, 8, 8)), n.const(patterned.reshape(16, 16, 3, 3)), pads=[1, 1, 1, 1])
    y = n.node("Conv", n.node("Relu", y), n.const(columns.reshape(16, 16, 3, 3)), pads=[1, 1, 1, 1])
    first, second = by_weights(inspect(n.model(y)))
    shapes = f"{len({tuple(p) for p in library})} patterns of 4 in 9"
    assert shapes in first["structure"]  # type: ignore[operator]
    assert shapes in first["stored_only"]  # type: ignore[operator]
    zero = int((columns == 0).all(axis=0).sum())
    assert f"{zero} of 144 columns zero" in second["structure"]  # type: ignore[operator]
    if "_block" in str(second["kernel"]):
        assert not any("columns" in str(s) for s in second["stored_only"])  # type: ignore[attr-defined]


def test_times_are_predicted_and_measured() -> None:
    plain = inspect(net())
    assert all(row["time_us"] is None and row["slow"] is False for row in plain["layers"])
    assert [row["predicted_us"] > 0 for row in by_weights(plain)] == [True] * 3
    assert plain["totals"]["time_us"] is None
    timed = inspect(net(), batch=4, time=True)
    rows = by_weights(timed)
    assert all(row["time_us"] > 0 for row in rows)
    assert all(row["slow"] == (row["time_us"] > 2 * row["predicted_us"] + 1) for row in rows)
    totals = timed["totals"]
    assert totals["time_us"] == pytest.approx(sum(row["time_us"] or 0 for row in timed["layers"]), abs=0.02)
    assert totals["n_slow"] == sum(row["slow"] for row in rows)
    assert rows[0]["predicted_us"] > by_weights(plain)[0]["predicted_us"]


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
