"""Result: it shows itself, saves what the command saves, and its claims can be checked where it was made."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.nets import blobs, mlp
from torch import nn

import secateur
from secateur.data.tensors import TensorData
from secateur.errors import InterruptedRun, MissingExtraError, UsageError
from secateur.proof import record, verify
from secateur.report import html
from secateur.report.tables import summary
from secateur.training import metrics

NONZEROS, MACS = verify.counted_in_module("nnz"), verify.counted_in_module("macs")

RECIPE: dict[str, Any] = {
    "constrain": [{"where": "*", "with": ["topk", "codebook"]}],
    "solver": {"name": "gradual", "epochs": 2, "every": 5},
    "training": {"lr": 1e-2, "threads": 1, "warmup_steps": 2},
    "bench": {"seconds": 0.01, "against": []},
    "baselines": [],
}
VALID = TensorData(*blobs(64, 1), batch_size=32)


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mlp().eval()


def compress() -> secateur.Result:
    return secateur.compress(
        net(), TensorData(*blobs(128, 0), batch_size=32), valid=VALID, budget={"nbytes": 300}, recipe=RECIPE
    )


@pytest.fixture(scope="module")
def result() -> secateur.Result:
    return compress()


def test_print_shows_the_table_and_the_budget(result: secateur.Result) -> None:
    text = str(result)
    assert all(title in text for title in summary(result.report)[0])
    assert f"budget nbytes: asked 300 B, reached {len(result.files.sct)} B met" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_repr_is_one_short_line(result: secateur.Result) -> None:
    size = len(result.files.sct)
    dense = result.report["dense"]["nbytes"]  # a net of three figures
    accuracy = 100 * result.report["compressed"]["metric"]["value"]
    assert repr(result) == f"Result(MLP, {size} B (dense {dense} B), accuracy {accuracy:.2f} %, budget met)"
    missed = copy.deepcopy(result.report)
    missed["budget"][0]["met"] = False
    assert repr(dataclasses.replace(result, report=missed)).endswith("budget missed: nbytes)")
    assert repr(dataclasses.replace(result, report={})) == f"Result(MLP, {size} B, no report)"


def test_a_notebook_shows_a_table_in_which_names_are_data(result: secateur.Result) -> None:
    odd = copy.deepcopy(result.report)
    odd["compressed"]["metric"]["name"] = odd["dense"]["metric"]["name"] = "<b>mine</b>"
    page = dataclasses.replace(result, report=odd)._repr_html_()
    assert page.count("<tr>") == 1 + len(summary(odd)[1])
    assert "<b>mine</b>" not in page
    assert "&lt;b&gt;mine&lt;/b&gt;" in page


def test_save_writes_what_the_command_writes(result: secateur.Result, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    folder = result.save(tmp_path / "run")
    assert {p.name for p in folder.iterdir()} == {*verify.FILES, "report.html"}
    assert "<html" in (folder / "report.html").read_text()


def test_without_plotly_the_files_are_saved_and_a_word_is_said(
    result: secateur.Result, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(record: Any) -> str:
        raise MissingExtraError("plotly is not installed")

    monkeypatch.setattr(html, "render", render)
    folder = result.save(tmp_path / "run")
    assert {p.name for p in folder.iterdir()} == set(verify.FILES)
    assert any("report.html was not written" in r.getMessage() for r in caplog.records)


def checks(found: Any) -> dict[str, bool | None]:
    return {c["name"]: c["passed"] for c in found["checks"]}


def test_verify_checks_everything_but_the_metric(result: secateur.Result) -> None:
    found = result.verify()
    assert found["passed"]
    by_name = checks(found)
    assert by_name.pop("metric on the validation data") is None
    assert all(passed is True for passed in by_name.values())
    assert {NONZEROS, MACS, verify.TENSORS, verify.SETS, verify.OUTPUTS, "budget nbytes"} <= set(by_name)
    assert "MISMATCH" not in str(found)
    assert "ONNX" in str(found)  # the check's name; a narrow terminal wraps it


def test_verify_rebuilds_the_module_from_the_files_of_a_fresh_model(result: secateur.Result) -> None:
    fresh = net()
    before = copy.deepcopy(fresh.state_dict())
    other = dataclasses.replace(result, model=nn.Linear(2, 2))  # is not looked at
    assert other.verify(fresh)["passed"]
    assert all(torch.equal(before[k], v) for k, v in fresh.state_dict().items())


def test_verify_asks_for_the_metric_again(result: secateur.Result) -> None:
    asked = metrics.accuracy(VALID)
    by_name = checks(result.verify(evaluate=asked))
    assert by_name["metric on the validation data, PyTorch"] is True
    assert by_name["metric on the validation data, engine"] is True
    assert not result.verify(evaluate=lambda m: asked(m) - 0.01)["passed"]


def test_verify_finds_claims_that_do_not_hold(result: secateur.Result) -> None:
    lying = copy.deepcopy(result.report)
    lying["compressed"]["macs"] -= 1
    found = dataclasses.replace(result, report=lying).verify()
    assert [c["name"] for c in found["checks"] if c["passed"] is False] == [MACS]
    moved = copy.deepcopy(result.model)
    with torch.no_grad():
        next(moved.parameters()).mul_(1.01)
    assert not dataclasses.replace(result, model=moved).verify()["passed"]


def test_verify_says_when_there_is_nothing_to_check(result: secateur.Result) -> None:
    with pytest.raises(UsageError, match="no report or no inputs"):
        dataclasses.replace(result, report={}).verify()


def test_an_interrupt_after_the_training_keeps_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    build = record.build

    def interrupted(job: Any, *args: Any) -> Any:
        if job.stages:  # not the rehearsal
            os.kill(os.getpid(), signal.SIGINT)
        return build(job, *args)

    monkeypatch.setattr(record, "build", interrupted)
    with pytest.raises(InterruptedRun, match=r"it is saved in (\S+) ") as caught:
        compress()
    folder = Path(str(caught.value).partition("saved in ")[2].split()[0])
    assert (folder / "model.sct").stat().st_size <= 300
    assert not secateur.load(folder, net()).training
