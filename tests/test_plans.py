"""`plan`: on the dense net that compress will have, for every kind of budget, with totals that are sums of its rows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.nets import blobs, mlp
from torch import nn

import secateur
from secateur import api, cli, zoo
from secateur.api import plan as plans
from secateur.api.asked import by_name, make_job
from secateur.data.tensors import TensorData
from secateur.errors import InterruptedRun, UsageError
from secateur.recipe import Recipe
from secateur.run import search, stages
from secateur.training import seeds
from secateur.training.checkpoint import Ledger

Capture = pytest.CaptureFixture[str]
DIGITS = """
model: secateur.zoo:digits_cnn
data: digits
budget: {nbytes: 20KB}
constrain: [{where: "*", with: [topk, codebook]}]
dense: {epochs: 1}
solver: {name: gradual, epochs: 1}
training: {batch_size: 256, threads: 1}
"""
DATA = TensorData(*blobs(128, 0), batch_size=32)
RECIPE: dict[str, Any] = {"training": {"threads": 1}, "bench": {"seconds": 0.01, "against": []}}
TOTALS = ("nbytes", "nnz", "macs")


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mlp().eval()


def plan(budget: dict[str, Any], rules: Any = "topk") -> dict[str, Any]:
    constrain = rules if isinstance(rules, list) and isinstance(rules[0], dict) else [{"where": "*", "with": rules}]
    return secateur.plan(net(), DATA, budget=budget, recipe=RECIPE | {"constrain": constrain})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(DIGITS)
    return path


def run(*argv: object) -> int:
    return cli._main([str(a) for a in argv])


def sums_agree(found: dict[str, Any]) -> bool:
    return all(sum(row[k] for row in found["layers"]) + found["rest"][k] == found[k] for k in TOTALS)


@pytest.mark.parametrize("rules", [["topk", "codebook"], "rows"])
@pytest.mark.parametrize(
    "budget",
    [
        {"nbytes": 600},
        {"nnz": 80},
        {"macs": 80},
        {"accuracy_drop": "5pt"},
        {"nbytes": 600, "accuracy_drop": "5pt"},
        {"nbytes": "0.6KB", "nnz": 90, "macs": "0.09K"},
    ],
)
def test_every_kind_of_budget_is_planned_and_the_sums_agree(budget: dict[str, Any], rules: Any) -> None:
    found = plan(budget, rules)
    assert sums_agree(found)
    assert all(found["rest"][k] >= 0 for k in TOTALS)
    limits = Recipe.from_dict({"budget": budget}).budget
    assert {row["name"]: row["asked"] for row in found["budget"]} == limits
    for row in found["budget"]:
        if row["name"] == "accuracy_drop":
            assert row["predicted"] is None
        else:
            assert row["predicted"] == found[row["name"]] <= 1.02 * row["asked"]
    assert any("accuracy_drop <= 5.00 points" in note for note in found["notes"]) == ("accuracy_drop" in budget)
    json.dumps(found)


def test_an_accuracy_drop_alone_says_what_is_planned() -> None:
    found = plan({"accuracy_drop": "5pt"})
    result = secateur.compress(net(), DATA, budget={"nnz": 80}, recipe={**RECIPE, "solver": "one_shot"})
    dense = result.report["dense"]["nbytes_sct"]
    assert f"planned here is where it begins, {dense / 8:.0f} B" in " ".join(found["notes"])
    assert found["nbytes"] <= dense / 8


def test_what_no_rule_names_is_in_the_rest() -> None:
    found = plan({"nnz": 60}, [{"where": "fc1", "with": "topk"}])
    assert [row["name"] for row in found["layers"]] == ["fc1.weight"]
    assert found["rest"]["nnz"] == 36  # fc2, dense
    assert sums_agree(found)


def test_weights_that_are_shared_by_rules_are_counted_once() -> None:
    rules = [{"where": "fc1", "with": "rows", "level": {"rows": 6}}, {"where": "*", "with": "topk"}]
    found = plan({"nnz": 50}, rules)
    assert sums_agree(found)
    assert found["nnz"] <= 50
    assert next(row for row in found["layers"] if row["constraint"] == "rows")["nnz"] == 0


def test_a_projection_that_cuts_the_net_off_is_no_prediction() -> None:
    """README's first recipe: untrained weights, of which almost none is kept in the large layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = zoo.lenet300()
    x = TensorData(torch.rand(8, 1, 28, 28), torch.zeros(8, dtype=torch.long), 8)
    found = secateur.plan(model, x, budget={"nbytes": 3000}, recipe={"constrain": [{"with": ["topk", "codebook"]}]})
    assert 0.8 * 3000 <= found["nbytes"] <= 1.02 * 3000
    assert found["nbytes_error"] <= 1
    assert any("projecting these weights at once would cut layers off" in note for note in found["notes"])
    assert sums_agree(found)


def test_a_recipe_that_trains_its_dense_net_is_planned_on_that(recipe: Path, tmp_path: Path, capsys: Capture) -> None:
    kept = tmp_path / "dense.safetensors"
    assert run("plan", recipe, "--keep", kept) == 0
    out, err = capsys.readouterr()
    assert "the dense net was trained first, as compress does it (1 epochs" in " ".join(out.split())
    assert "the recipe trains its dense net, 1 epochs, and the plan needs it" in err
    assert "training the dense net: " in err
    assert "all else" in out
    assert "total" in out
    job = make_job(by_name(Recipe.from_file(recipe), None), Recipe.from_file(recipe), Ledger(), None)
    with seeds.isolated(1):
        stages.train_dense(job, *job.recipe.dense_training())  # type: ignore[misc]
    again = load_file(kept)
    assert all(torch.equal(again[k], v) for k, v in job.dense.state_dict().items())
    assert run("plan", recipe, "--dense", kept, "--json", "-q") == 0
    taken = json.loads(capsys.readouterr().out)
    assert taken["notes"][0] == f"the dense net is that of {kept}"
    assert taken["dense_metric"] > 0.1
    assert sums_agree(taken)


def test_the_dense_net_of_a_run_can_be_taken(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(job: Any) -> None:
        raise InterruptedRun("after the dense training")

    monkeypatch.setattr(search, "solve", stop)
    asked = Recipe.from_file(recipe)
    with pytest.raises(InterruptedRun):
        api.run(asked, tmp_path / "run")
    found = plans.of_recipe(asked, dense=tmp_path / "run")
    assert found["dense_metric"] > 0.1
    model = zoo.lenet300()
    with pytest.raises(UsageError, match="its dense net is another model"):
        plans._take(model, tmp_path / "run")
    with pytest.raises(UsageError, match="no trained dense net: neither"):
        plans._take(model, tmp_path)


def test_untrained_plans_at_once_and_shows_no_metrics(recipe: Path, capsys: Capture) -> None:
    assert run("plan", recipe, "--untrained") == 0
    out, err = capsys.readouterr()
    assert "training the dense net" not in err
    assert "planned on weights that are not trained" in " ".join(out.split())
    assert "alone, metric" not in out
    assert run("plan", recipe, "--untrained", "--dense", recipe) == 2
    assert "--untrained and --dense exclude each other" in capsys.readouterr().err


def test_random_weights_of_the_zoo_are_said(recipe: Path) -> None:
    found = plans.of_recipe(Recipe.from_file(recipe, ["dense=null"]))
    assert found["notes"][0].startswith("secateur.zoo:digits_cnn has random weights")


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{nnz: 3}", "smallest network that these constraints give keeps 5 weights"),
        ("{macs: 100}", "smallest network that these constraints give takes"),
        ("{nbytes: 20}", "the graph alone (operators, names, shapes) takes about"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "compress"])
def test_impossible_limits_are_refused_before_the_dense_training(
    command: str, budget: str, said: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(self: Any, *args: Any) -> None:
        raise AssertionError("the dense net is trained")

    monkeypatch.setattr("secateur.run.stages.train_dense", train)
    path = tmp_path / "r.yaml"
    path.write_text(DIGITS.replace("{nbytes: 20KB}", budget).replace("[topk, codebook]", "topk"))
    out = ["-o", tmp_path / "out"] if command == "compress" else []
    assert run(command, path, "-q", *out) == 1
    assert said in capsys.readouterr().err


def test_a_plan_changes_nothing_and_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    model = net()
    before = copy.deepcopy(model.state_dict())
    found = secateur.plan(model, DATA, budget={"nnz": 80})
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert "fc1.weight" in str(found)
    assert "budget nnz: asked 80, predicted" in str(found)
