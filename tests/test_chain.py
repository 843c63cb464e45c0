"""Nets of several levels: supports inside one another, one set of weights, statistics of their own."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateur import compress, formats, load
from secateur.api.own_loop import Compressor
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.data.tensors import TensorData
from secateur.engine import InferenceSession
from secateur.errors import BudgetError, UsageError
from secateur.export.stored import initializers
from secateur.terms.frozen import Frozen
from secateur.testing import nets
from secateur.training import metrics
from secateur.training.alternate import Alternate
from secateur.types import Member, Site

CHAIN = {"name": "nested", "of": "topk", "shares": [0.5, 0.2]}
COMMON = {"baselines": [], "bench": {"seconds": 0.01, "against": []}, "training": {"lr": 0.01, "threads": 1}}


def splits() -> tuple[TensorData, TensorData]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (256,), generator=g)
    x = torch.randn(256, 1, 8, 8, generator=g) + y[:, None, None, None]
    return TensorData(x[:192], y[:192], 32), TensorData(x[192:], y[192:], 64)


def compressed(with_: Any = CHAIN, model: nn.Module | None = None, **recipe: Any) -> Any:
    train, valid = splits()
    asked = {"constrain": [{"where": "*", "with": with_}], "solver": {"name": "gradual", "epochs": 2}, **COMMON}
    model = nets.residual() if model is None else model
    return compress(model, train, valid=valid, recipe={**asked, **recipe}, on_progress=False)


@pytest.fixture(scope="module")
def result() -> Any:
    return compressed(budget={"nnz": 200})


def files_of(result: Any) -> list[dict[str, np.ndarray]]:
    return [initializers(f.onnx) for f in (result.files, *result.files.levels)]


def weights_of(level: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v for k, v in level.items() if v.ndim > 1}


def test_one_set_of_weights_each_support_inside_the_one_before(result: Any) -> None:
    levels = files_of(result)
    assert len(levels) == 3
    for looser, tighter in pairwise(levels):
        assert looser.keys() == tighter.keys()
        for name, w in weights_of(tighter).items():
            assert np.array_equal(w[w != 0], weights_of(looser)[name][w != 0]), name
    nnz = [sum(int(np.count_nonzero(w)) for w in weights_of(level).values()) for level in levels]
    assert [n <= most for n, most in zip(nnz, (200, 100, 40), strict=True)] == [True] * 3
    assert nnz[1] > 90
    assert nnz[2] > 35


def test_every_level_has_batch_norm_statistics_of_its_own(result: Any) -> None:
    """A file holds them in scale and shift; those of the loosest level are not those of the tightest."""
    loosest, _, tightest = files_of(result)
    assert not np.allclose(loosest["bn2.bias"], tightest["bn2.bias"])
    x = torch.cat([inputs for inputs, _ in splits()[0]])
    for files in (result.files, *result.files.levels):
        seen: list[torch.Tensor] = []
        hook = files.module.bn2.register_forward_hook(lambda m, i, o, seen=seen: seen.append(i[0]))
        files.module(x)
        hook.remove()
        assert torch.allclose(seen[0].mean((0, 2, 3)), files.module.bn2.running_mean, atol=0.02)


def test_the_report_has_a_row_for_each_level(result: Any) -> None:
    rows = result.report["levels"]
    assert [r["level"] for r in rows] == [0, 1, 2]
    assert [r["budget"][0]["asked"] for r in rows] == [200, 100, 40]
    for row, level, files in zip(rows, files_of(result), (result.files, *result.files.levels), strict=True):
        assert row["nnz"] == sum(int(np.count_nonzero(w)) for w in weights_of(level).values())
        assert row["metric_engine"] == pytest.approx(row["metric"]["value"])
        assert row["latency_ms"]["engine"]["median"] > 0
        x = next(iter(splits()[1]))[0][:5].numpy()
        found = InferenceSession(files.sct).run(None, {InferenceSession(files.sct).get_inputs()[0].name: x})[0]
        assert np.allclose(found, files.module(torch.from_numpy(x)).detach().numpy(), atol=1e-4)
    (term, *_) = result.report["terms"]
    assert term["with"]["name"] == "nested"
    assert len(term["level"]) == 3
    assert "levels of one set of weights" in str(result)


def test_the_files_hold_every_level(result: Any, tmp_path: Path) -> None:
    folder, x = result.save(tmp_path / "run"), next(iter(splits()[1]))[0][:9]
    session = InferenceSession(folder / "model.sct")
    for level, files in enumerate((result.files, *result.files.levels)):
        module = load(folder, nets.residual(), level=level)
        session.set_level(level)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert torch.allclose(module(x), files.module(x), atol=1e-5)
        assert np.allclose(found, module(x).detach().numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="no level 3"):
        load(folder, nets.residual(), level=3)
    sct, alone = (folder / "model.sct").read_bytes(), formats.pack((folder / "model.onnx").read_bytes())
    assert len(alone) < len(sct) < 1.4 * len(alone)  # a net of 468 weights: mostly norms


def test_verify_looks_at_every_level(result: Any) -> None:
    evaluate = metrics.accuracy(splits()[1])
    found = result.verify(evaluate=evaluate)
    assert found["passed"], [c for c in found["checks"] if not c["passed"]]
    names = [c["name"] for c in found["checks"]]
    for level in (1, 2):
        assert f"level {level}: engine = ONNX Runtime = PyTorch" in names
        assert f"level {level}: the engine answers as on a file of this level alone, to the bit" in names
        assert f"level {level}: metric on validation, PyTorch" in [n.replace("accuracy", "metric") for n in names]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda r: r["levels"][1].update(nnz=5), "level 1: nonzeros"),
        (lambda r: r["levels"][2].update(metric_valid=0.999), "level 2: accuracy on validation, PyTorch"),
        (lambda r: r["levels"][2]["budget"][0].update(asked=3), "level 2: budget nnz"),
        (lambda r: r["levels"].pop(), "levels of model.sct"),
        (lambda r: r["terms"][1]["level"].__setitem__(2, 0), "level 2: in its sets and inside the one before"),
    ],
)
def test_verify_finds_what_is_not_so(result: Any, change: Any, check: str) -> None:
    report = deepcopy(result.report)
    change(report)
    found = replace(result, report=report).verify(evaluate=metrics.accuracy(splits()[1]))
    assert not found["passed"]
    assert check in [c["name"] for c in found["checks"] if c["passed"] is False]


def test_verify_finds_a_level_that_is_another_net(result: Any) -> None:
    swapped = replace(result.files, levels=result.files.levels[::-1])
    found = replace(result, files=swapped).verify()
    wrong = [c["name"] for c in found["checks"] if c["passed"] is False]
    assert "the ONNX files of all levels pack to model.sct" in wrong
    assert "level 2: in its sets and inside the one before" in wrong


def test_levels_that_the_recipe_gives() -> None:
    entry = {"where": "*", "with": {"name": "nested", "of": "rows"}, "level": {"keep": [3, 2]}, "exclude": "fc"}
    found = compressed(constrain=[entry], solver={"name": "one_shot", "epochs": 1})
    loosest, tightest = files_of(found)
    rows = [
        np.count_nonzero(level["conv1.weight"].reshape(len(level["conv1.weight"]), -1).any(1))
        for level in (loosest, tightest)
    ]
    assert rows == [3, 2]
    gone = ~tightest["conv1.weight"].reshape(3, -1).any(1)
    assert not tightest["bn1.bias"][gone].any()  # a removed channel makes nothing


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({"budget": {"nbytes": 900}}, "cannot be held at every level"),
        ({"budget": {"nnz": 200, "accuracy_drop": "1pt"}}, "cannot be held at every level"),
        ({}, "no limit says where the levels lie"),
        ({"budget": {"nnz": 200}, "quantize": {"weights": None, "activations": 8}}, "scale for each level"),
        (
            {"budget": {"nnz": 200}, "constrain": [{"where": "*", "with": CHAIN}, {"where": "fc", "with": "codebook"}]},
            "fc.weight has values",
        ),
        (
            {
                "budget": {"nnz": 200},
                "constrain": [{"where": "*", "with": CHAIN}, {"where": "fc", "with": {"name": "nested", "of": "topk"}}],
            },
            "different shares",
        ),
    ],
)
def test_what_a_net_of_levels_cannot_have(recipe: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        compressed(**recipe)


def test_a_share_that_cannot_be_met_names_its_level() -> None:
    entry = {"where": ["stem", "conv1"], "with": {"name": "nested", "of": "topk", "shares": [0.4]}}
    with pytest.raises(BudgetError, match=r"level 1, 0\.4 of the budget"):
        compressed(constrain=[entry], budget={"nnz": 400}, solver={"name": "one_shot", "epochs": 1})


def test_the_users_own_loop_is_refused() -> None:
    model = nets.residual()
    optimizer = torch.optim.Adam(model.parameters())
    recipe = {"constrain": [{"where": "*", "with": CHAIN}], "budget": {"nnz": 200}}
    with pytest.raises(UsageError, match=r"nested .* use compress"):
        Compressor(model, recipe, nets.example("residual"), optimizer=optimizer, total_steps=4)


def rungs() -> list[Frozen]:
    site = Site("w", "linear", (1, 3), (Member("w"),))
    at = [{"w": torch.tensor([[3.0, 2.0, 0.0]])}, {"w": torch.tensor([[3.0, 0.0, 0.0]])}]
    return [Frozen((Term(site, TopK()),), {"w": k}, w) for k, w in zip((2, 1), at, strict=True)]


def test_a_step_moves_the_level_whose_turn_it_is_and_nothing_else() -> None:
    w = nn.Parameter(torch.tensor([[3.0, 2.0, 0.0]]))
    phase = Alternate(rungs(), {"w": w}, 4)
    for shown, after in (([3.0, 2.0, 0.0], [2.0, 1.0, 0.0]), ([2.0, 0.0, 0.0], [1.0, 1.0, 0.0])):
        assert w.tolist() == [shown]
        w.grad = torch.ones(1, 3)
        phase.before_step()
        with torch.no_grad():
            w.sub_(torch.ones(1, 3))  # a momentum moves what has no gradient as well
        phase.after_step()
        assert phase.tracked()["w"].tolist() == [after]
    assert w.grad.tolist() == [[1.0, 0.0, 0.0]]  # the tighter level's
    again = Alternate(rungs(), {"w": w}, 4)
    again.load_state_dict(*phase.state_dict())
    assert (again.n, again.full["w"].tolist(), w.tolist()) == (2, [[1.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]])
