"""Rows of features through an integer linear layer, bytes in and bytes out, against exact sums at every ISA."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import engine


def linear(codes: np.ndarray, scales: np.ndarray, rows: int, signed: bool) -> bytes:
    n_out, n_in = codes.shape
    code, kind = (np.int8, TensorProto.INT8) if signed else (np.uint8, TensorProto.UINT8)
    held = {
        **{"sx": np.float32(0.5), "zx": code(0), "w": codes, "sw": scales},
        **{"sy": np.float32(16), "zy": code(0 if signed else 128)},
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["b"], axis=0),
        helper.make_node("Gemm", ["a", "b"], ["c"], transB=1),
        helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, [rows, n_in])],
        [helper.make_tensor_value_info("y", kind, [rows, n_out])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("isa", engine.isas())
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("rows", "n_in", "n_out"), [(1, 24, 20), (17, 24, 20), (32, 64, 68), (33, 20, 18), (5, 18, 7)])
def test_bytes_of_rows_come_back_in_their_order(
    rows: int, n_in: int, n_out: int, signed: bool, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(rows + n_out)
    codes = np.where(rng.random((n_out, n_in)) < 0.3, rng.integers(-127, 128, (n_out, n_in)), 0).astype(np.int8)
    scales = np.exp2(rng.integers(-5, -2, n_out)).astype(np.float32)  # powers of two: products are exact
    low, high = (-128, 127) if signed else (0, 255)
    x = rng.integers(low, high + 1, (rows, n_in))
    sums = x @ codes.T.astype(np.int64) * 0.5 * scales / 16
    wanted = np.clip(np.rint(sums) + (0 if signed else 128), low, high)
    monkeypatch.setenv("SECATEUR_ISA", isa)
    found = engine.InferenceSession(linear(codes, scales, rows, signed), threads=1).run(
        None, {"x": x.astype(np.int8 if signed else np.uint8)}
    )[0]
    np.testing.assert_array_equal(found.astype(np.int64), wanted)
