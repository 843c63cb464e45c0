"""Progress: what people see on a terminal, in a notebook, in a log; silence when asked for; nothing lost by Ctrl-C."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training.nets import blobs, mlp

import secateur
from secateur.data.tensors import TensorData
from secateur.errors import InterruptedRun
from secateur.report import progress
from secateur.types import Progress

Capture = pytest.CaptureFixture[str]
RECIPE: dict[str, Any] = {
    "constrain": [{"where": "*", "with": "topk"}],
    "solver": {"name": "gradual", "epochs": 2, "every": 5},
    "training": {"lr": 1e-2, "threads": 1, "warmup_steps": 2},
    "bench": {"seconds": 0.01, "against": []},
}


def compress(**changes: Any) -> secateur.Result:
    torch.manual_seed(0)
    train, valid = TensorData(*blobs(128, 0), batch_size=32), TensorData(*blobs(64, 1), batch_size=32)
    return secateur.compress(mlp().eval(), train, valid=valid, budget={"nnz": 40}, **{"recipe": RECIPE, **changes})


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    seen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", seen)
    return seen


def test_a_terminal_shows_stage_rate_and_time_left_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_a_terminal(monkeypatch)
    compress()
    text = " ".join(seen.getvalue().split())
    assert "pruning: 6/6 steps" in text
    assert "baseline (one-shot): retraining what is left: 8/8 steps" in text
    said = "retrained for 2 epochs after the run's own 2, to show what the solver gains; `baselines: []` in the recipe"
    assert said in text
    assert "main.approach" not in text


def test_the_bar_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_a_terminal(monkeypatch)
    with progress.shown() as report:
        assert report is not None
        report(Progress("main.polish", 30, 120, 3.0, {"loss": 0.25}))
    assert "retraining what is left" in seen.getvalue()
    assert "30/120 steps, 10.0 steps/s, 9.0 s left, loss 0.25" in seen.getvalue()


@pytest.mark.parametrize("asked", [False, None])
def test_silence_where_it_is_asked_for_and_where_nobody_looks(asked: bool | None, capfd: Capture) -> None:
    compress(on_progress=asked, recipe={**RECIPE, "baselines": []})
    assert capfd.readouterr() == ("", "")


def test_false_is_silence_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_a_terminal(monkeypatch)
    compress(on_progress=False)
    assert seen.getvalue() == ""


def test_a_program_can_have_a_line_for_each_training_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="secateur"):
        compress()
    lines = [r.getMessage() for r in caplog.records if r.name == "secateur"]
    assert lines[0].startswith("baseline: one-shot pruning is retrained for 2 epochs")
    kinds = [text.partition(":")[0] for text in lines[1:]]
    assert kinds == ["pruning", "retraining what is left", "baseline (one-shot)"]


def test_no_word_about_baselines_that_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="secateur"):
        compress(recipe={**RECIPE, "baselines": []})
    assert not any("baseline" in r.getMessage() for r in caplog.records)


def test_a_callable_gets_the_events() -> None:
    seen: list[Progress] = []
    compress(on_progress=seen.append)
    assert {"main.approach", "main.polish", "one_shot.polish"} <= {p.stage for p in seen}


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands in the cell of a notebook, after each change."""
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.display = lambda data, raw, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_notebook_shows_one_line_a_stage(cell: list[str], capfd: Capture) -> None:
    compress()
    last = cell[-1].splitlines()
    assert last[0].startswith("baseline: one-shot pruning is retrained")
    assert [text.partition(":")[0] for text in last[1:]] == [
        "pruning",
        "retraining what is left",
        "baseline (one-shot)",
    ]
    assert any("pricing the layers" in text for text in cell)
    assert capfd.readouterr() == ("", "")


def test_ipython_in_a_terminal_is_no_notebook(cell: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace())
    compress(recipe={**RECIPE, "baselines": []})
    assert cell == []


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("dense", "training the dense net"),
        ("search2.approach1", "search, try 3: pruning, part 1"),
        ("looser0.snap", "looser budget, try 1: training the quantized values"),
        ("main.trim0.fit", "last trim: fitting the budget"),
        ("narrow.prices", "pricing the layers"),
        ("seed 3 control main.polish", "seed 3 control retraining what is left"),
        ("somebody.elses", "somebody: elses"),
    ],
)
def test_stages_have_plain_names(stage: str, said: str) -> None:
    assert progress.plainly(stage) == said


def interrupting(stage: str) -> Any:
    def on_progress(event: Progress) -> None:
        if event.stage == stage and event.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    return on_progress


def test_an_interrupted_call_says_that_nothing_was_kept() -> None:
    with pytest.raises(InterruptedRun, match=r"interrupted at step 2 of 6; nothing was kept") as caught:
        compress(on_progress=interrupting("main.approach"))
    assert "--resume" not in str(caught.value)
    assert "secateur compress RECIPE -o DIR" in str(caught.value)
