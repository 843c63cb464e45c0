"""Many models timed beside each other, their results compared in the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import engine
from secateur.errors import UsageError


def linear(n_out: int) -> bytes:
    weight = numpy_helper.from_array(np.ones((8, n_out), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", n_out])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_every_model_is_timed_in_every_runtime_and_compared(tmp_path: Path) -> None:
    (tmp_path / "wide.onnx").write_bytes(linear(16))
    models = {"narrow": linear(4), "wide": tmp_path / "wide.onnx"}
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    found = engine.side_by_side(models, x, against=["onnxruntime"], seconds=0.01)
    assert {n: set(times) for n, times in found["latency_ms"].items()} == {
        "narrow": {"engine", "onnxruntime"},
        "wide": {"engine", "onnxruntime"},
    }
    assert all(0 < t["p10"] <= t["median"] <= t["p90"] for by in found["latency_ms"].values() for t in by.values())
    assert [(c["model"], c["agree"]) for c in found["checks"]] == [("narrow", True), ("wide", True)]
    assert found["n_inputs"] == 40


def test_no_models_and_other_peers_are_refused() -> None:
    x = np.zeros((4, 8), np.float32)
    with pytest.raises(UsageError, match="one model at least"):
        engine.side_by_side({}, x)
    with pytest.raises(UsageError, match="peers that run files"):
        engine.side_by_side({"a": linear(4)}, x, against=["torch"])
