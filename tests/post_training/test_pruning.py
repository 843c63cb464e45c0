"""One-shot pruning of a file: which weights go, budgets that hold, refusals that name what is reachable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from post_training import nets
from secateur import cli
from secateur.engine import InferenceSession, inspect
from secateur.errors import BudgetError, UsageError
from secateur.post_training import prune
from secateur.post_training.moments import moments
from secateur.post_training.opening import opened

FEATURES = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32) * np.float32([1, 10, 0.1, 1])


def weights(model: bytes) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}


def test_what_a_weight_is_multiplied_with_decides() -> None:
    """By hand: w^2 * sum x^2; one weight a layer stays."""
    w = np.float32([[3, 1], [1, 0.2], [9, 9], [0, 0.1]])
    found = prune(nets.dense([("MatMul", w)]), FEATURES, {"nnz": 3})
    norms = np.sqrt((FEATURES.astype(np.float64) ** 2).sum(axis=0))
    score = np.abs(w) * norms[:, None]
    assert np.array_equal(weights(found.model)["w0"] != 0, score >= np.sort(score.ravel())[-3])
    assert found.report["nnz"] == found.report["budget"]["value"] == 3


def test_layers_lose_the_same_share_of_what_they_compute() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 30)).astype(np.float32), 1000 * rng.standard_normal((30, 3)).astype(np.float32)
    rows = prune(nets.dense([("MatMul", a), ("MatMul", b)]), FEATURES).report["layers"]
    assert sum(r["nnz"] for r in rows) == 105
    assert all(0.2 < r["nnz"] / r["n_weights"] < 0.8 for r in rows)  # not by magnitude: the second would stay whole


def test_moments_of_what_is_read() -> None:
    torch.manual_seed(0)
    shape = (3, 12, 12)
    model, x = nets.exported(nets.ready(nets.Residual(), shape), shape, 17), nets.examples(shape, 20)
    net = opened(model, x, (), 1)
    seen = moments(net.graph, net.layers, net.data, 1, None)
    assert np.allclose(seen["x"].squares, (x.astype(np.float64) ** 2).sum(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(seen["x"].mean, x.mean(axis=(0, 2, 3)), atol=1e-6)
    assert len(seen) == 4


def test_biases_take_over_the_mean() -> None:
    """A grouped convolution whose inputs are constant but for noise: what goes is made up for."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(16, 3))
    x = (2 + 0.01 * nets.examples((4, 2, 2), 32)).astype(np.float32)
    found = prune(nets.exported(net.eval(), (4, 2, 2), 17), x, {"nnz": 20})
    (out,) = found.report["outputs"].values()
    assert out["relative_l2"] < 0.02
    assert found.report["nnz"] == 20


@pytest.fixture(scope="module")
def residual() -> Any:
    torch.manual_seed(0)
    shape = (3, 12, 12)
    return nets.exported(nets.ready(nets.Residual(), shape), shape, 17), nets.examples(shape, 24)


@pytest.mark.parametrize(
    ("budget", "int8"),
    [({"nnz": "0.5K"}, False), ({"macs": 60000}, False), ({"nbytes": "4KB"}, False), ({"nbytes": "2KB"}, True)],
)
def test_budgets_hold_and_are_used(residual: Any, budget: dict[str, Any], int8: bool) -> None:
    model, x = residual
    found = prune(model, x, budget, int8=int8)
    held = found.report["budget"]
    assert held["value"] <= held["limit"]
    assert held["value"] >= (0.97 if held["kind"] == "nbytes" else 0.99) * held["limit"]
    totals = inspect(found.model)["totals"]
    assert (
        held["value"] == {"nnz": totals["nnz"], "macs": totals["macs_nonzero"], "nbytes": len(found.sct)}[held["kind"]]
    )
    feeds = {"x": x}
    assert np.array_equal(*(InferenceSession(m).run(None, feeds)[0] for m in (found.model, found.sct)))
    kinds = {r["arithmetic"] for r in inspect(found.model)["layers"] if r["n_weights"]}
    assert kinds == ({"int8"} if int8 else {"float32"})


def test_a_kept_layer_is_whole(residual: Any) -> None:
    model, x = residual
    rows = prune(model, x, {"nnz": 700}, keep="fc", int8=True).report["layers"]
    assert [(r["n_weights"] == r["nnz"], r["arithmetic"]) for r in rows] == [(False, "int8")] * 3 + [(True, "float32")]


REFUSED: list[tuple[dict[str, Any], type[Exception], str, float | None]] = [
    ({"nnz": 3}, BudgetError, "nnz <= 3 cannot be met; one weight in each layer .* take 4 nonzeros", 4),
    ({"nbytes": 100}, BudgetError, "nbytes <= 100 cannot be met; .* bytes; raise the budget", None),
    ({"latency": 3}, UsageError, "one of nbytes, nnz, macs is possible for a file", None),
    ({"nnz": 3, "macs": 4}, UsageError, "one of nbytes, nnz, macs", None),
    ({"nnz": "many"}, UsageError, r"budget.nnz: 'many'", None),
]


@pytest.mark.parametrize(("budget", "error", "said", "smallest"), REFUSED)
def test_refusals(residual: Any, budget: Any, error: Any, said: str, smallest: float | None) -> None:
    model, x = residual
    with pytest.raises(error, match=said) as e:
        prune(model, x, budget)
    if smallest:
        assert e.value.smallest == smallest
    if error is BudgetError:  # what it names can be had
        kind = next(iter(budget))
        assert prune(model, x, {kind: e.value.smallest}).report["budget"]["value"] == e.value.smallest


def run(*argv: object) -> int:
    return cli._main(["compress", *map(str, argv)])


def test_the_command(residual: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = residual
    file, calib, out = tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "out"
    file.write_bytes(model)
    np.save(calib, x)
    assert run(file, "--calib", calib, "-o", out, "--budget", "nbytes=2KB", "--int8") == 0
    said = capsys.readouterr()
    assert "of 2,000 allowed" in said.out
    assert "fitting the budget" in said.err
    assert {p.name for p in out.iterdir()} == {"model.onnx", "model.sct", "report.json"}
    assert (out / "model.sct").stat().st_size <= 2000
    assert run(file, "--calib", calib, "-o", out, "-q", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text())
    assert report["nnz"] == (report["n_weights"] + 1) // 2
    assert run(file, "--calib", calib, "-o", out, "--budget", "nnz=1", "-q") == 1
    assert "cannot be met" in capsys.readouterr().err
    for argv, words in (
        ([file, "-o", out], "--calib is missing"),
        ([file, "--calib", calib, "-o", out, "--seed", "1"], "--seed is for recipes"),
        (["recipe.yaml", "--calib", calib, "-o", out], "--calib is for an .onnx or .sct file"),
        ([out / "model.onnx", "--calib", calib, "-o", out], "is read by this command"),
    ):
        assert run(*argv) == 2
        err = capsys.readouterr().err.strip()
        assert words in err
        assert len(err.splitlines()) == 1
