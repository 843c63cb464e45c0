"""Budgets in bytes of memory: the engine's own plan of the written file, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.training.nets import blobs

import secateur
from secateur.budget import kinds
from secateur.data.tensors import TensorData
from secateur.engine import InferenceSession, tabulate
from secateur.errors import BudgetError, UsageError
from secateur.proof import readings
from secateur.testing.nets import mlp

DATA = TensorData(*blobs(128, 0), batch_size=32)
RECIPE: dict[str, Any] = {
    "constrain": [{"where": "*", "with": "topk"}],
    "solver": {"name": "gradual", "epochs": 2, "every": 2},
    "training": {"threads": 1, "lr": 1e-2},
    "baselines": [],
    "bench": {"seconds": 0.01, "against": []},
}


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr(tabulate, "DENSITIES", (1.0, 0.5, 0.25, 0.1))


def wide() -> torch.nn.Module:
    """8 - 96 - 64 - 3: weights of a size at which sparse packing pays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = (torch.nn.Linear(8, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64), torch.nn.ReLU())
        return torch.nn.Sequential(*parts, torch.nn.Linear(64, 3)).eval()


def memory(result: secateur.Result) -> int:
    return sum(InferenceSession(result.files.onnx, threads=1).memory().values())


def test_memory_is_the_arena_and_the_packed_weights() -> None:
    """One product of 64 x 32: input and output lie in the arena, the weight is packed once."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((64, 32)).astype(np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = InferenceSession(model.SerializeToString(), threads=1)
    one, eight = session.memory(), session.memory(8)
    assert one["weights"] == eight["weights"] >= 4 * 64 * 32
    assert one["activations"] >= 4 * (32 + 64)
    assert eight["activations"] >= 8 * 4 * (32 + 64)


def test_memory_of_unknown_shapes_is_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UsageError, match="axes but the first are fixed"):
        InferenceSession(model.SerializeToString()).memory()


def test_limits_are_read_as_sizes() -> None:
    assert kinds.parse("peak_ram", "64KB") == 64_000
    assert kinds.parse("peak_ram", 4096) == 4096
    with pytest.raises(ValueError, match="needs a unit, one of B, KB"):
        kinds.parse("peak_ram", "64")


def test_a_run_keeps_within_its_memory() -> None:
    dense = secateur.compress(wide(), DATA, recipe={**RECIPE, "solver": {"name": "one_shot", "epochs": 0}},
                              budget={"peak_ram": "1MB"}, on_progress=False)  # fmt: skip
    whole = memory(dense)
    limit = 0.6 * whole
    found = secateur.compress(wide(), DATA, recipe=RECIPE, budget={"peak_ram": limit}, on_progress=False)
    row = found.report["budget"][0]
    assert row["met"] is True
    assert row["reached"] == memory(found) <= limit
    assert row["reached"] > 0.3 * whole
    checks = {c["name"]: c for c in found.verify()["checks"]}
    assert checks["budget peak_ram"]["passed"] is True
    claim = {**row, "asked": row["reached"], "reached": row["reached"]}
    assert readings.again(claim, found.files.onnx)[:2] == (row["reached"], True)
    assert readings.again({**claim, "asked": row["reached"] - 1}, found.files.onnx)[1] is False


def test_a_refusal_names_a_size_that_a_second_run_reaches() -> None:
    with pytest.raises(BudgetError, match="peak_ram <= 100 cannot be met") as refused:
        secateur.compress(mlp(), DATA, recipe=RECIPE, budget={"peak_ram": 100}, on_progress=False)
    assert refused.value.smallest is not None
    found = secateur.compress(
        mlp(), DATA, recipe=RECIPE, budget={"peak_ram": refused.value.smallest}, on_progress=False
    )
    assert found.report["budget"][0]["reached"] <= refused.value.smallest


def test_a_plan_shows_memory_by_layer() -> None:
    budget = {"peak_ram": "1MB", "nbytes": 20_000}
    found = secateur.plan(wide(), DATA, budget=budget, recipe=RECIPE)
    assert found["binds"] == "nbytes"
    assert all(row["peak_ram"] > 0 for row in found["layers"])
    assert found["rest"]["peak_ram"] > 0
    assert found["peak_ram"] == pytest.approx(sum(r["peak_ram"] for r in found["layers"]) + found["rest"]["peak_ram"])
