"""`reproduce first-try` on two tiny nets: cells, what is kept, what is made again, the record and its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur import cli, reproduce
from secateur.errors import FormatError, UsageError
from secateur.reproduce import first_try
from secateur.shell import saving


def narrow() -> nn.Module:
    """64 -> 24 -> 10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


CASES = {"narrow": first_try.Case(narrow, "digits", 2, 3e-3), "other": first_try.Case(narrow, "digits", 1, 3e-3)}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two tiny cells instead of the eight; the dense trainings that were made, by their epochs."""
    calls: list[str] = []
    fit = first_try.fit

    def counted(net, train, epochs, *rest):  # type: ignore[no-untyped-def]
        calls.append(next(n for n, c in CASES.items() if c.epochs == epochs))
        fit(net, train, epochs, *rest)

    monkeypatch.setattr(first_try, "cases", lambda: CASES)
    monkeypatch.setattr(first_try, "fit", counted)
    return calls


def test_a_cell_is_made_once_and_again_when_its_case_has_changed(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    record = reproduce.run("first-try", cells="n*", out=tmp_path)
    assert torch.equal(torch.rand(1), drawn), "the caller's generator was moved"
    assert list(record["cells"]) == trained == ["narrow"]

    cell, claim = record["cells"]["narrow"], record["claims"]["narrow"]
    assert cell["asked"] == 4 * (64 * 24 + 24 + 24 * 10 + 10) / 15
    assert cell["nbytes"] == (tmp_path / "seed0" / "narrow" / "model.sct").stat().st_size <= cell["asked"]
    assert cell["verified"] is True
    assert claim["drop"] == pytest.approx(cell["test"][0] - cell["test"][1])
    assert claim["met"] == (claim["drop"] <= 0.03)
    assert json.loads((tmp_path / "first-try.json").read_bytes()) == record

    record = reproduce.run("first-try", out=tmp_path, resume=True)
    assert trained == ["narrow", "other"]
    assert record["cells"]["narrow"] == cell

    monkeypatch.setitem(CASES, "narrow", replace(CASES["narrow"], lr=1e-3))
    again = reproduce.run("first-try", out=tmp_path, resume=True, cells="other")
    assert list(again["cells"]) == ["other"], "a stale cell is no result"
    reproduce.run("first-try", out=tmp_path, resume=True)
    assert trained == ["narrow", "other", "narrow"]


def test_the_command_runs_the_cells_that_match_and_prints_their_table(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._main(["reproduce", "first-try", "--cells", "oth*", "--seed", "3", "-o", str(tmp_path)]) == 0
    assert trained == ["other"]
    printed = capsys.readouterr().out
    assert "other" in printed
    assert "narrow" not in printed
    assert "| other | digits | " in (tmp_path / "first-try.md").read_text()
    assert (tmp_path / "seed3" / "other" / "report.json").exists()


def test_a_cell_that_misses_is_told() -> None:
    cell = {"data": "digits", "weights": 1500, "asked": 400.0, "nbytes": 399, "verified": True, "test": [0.9, 0.8]}
    claims = {"slow": {"drop": 0.1, "allowed": 0.03, "met": False}}
    record = {"name": "first-try", "about": "", "seed": 0, "machine": {}, "cells": {"slow": cell}, "claims": claims}
    row = next(x for x in first_try.table(record).splitlines() if x.startswith("slow"))
    assert row.split()[1:] == ["digits", "1,500", "400", "399", "90.00", "80.00", "+10.00", "verified", "NO"]


def test_unknown_cells_and_damaged_ones_are_refused(trained: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cell matches 'gru'; cells: narrow, other"):
        reproduce.run("first-try", cells="gru", out=tmp_path)
    with pytest.raises(UsageError, match=r"no cell matches .gru.; cells: dense"):
        reproduce.run("lenet5-mnist", cells="gru", out=tmp_path)
    saving.make_folder(tmp_path / "seed0" / "narrow")
    (tmp_path / "seed0" / "narrow" / "cell.json").write_text("{")
    with pytest.raises(FormatError, match=r"cell\.json: cannot be read"):
        reproduce.run("first-try", out=tmp_path, resume=True)
    assert trained == []


def test_the_eight_cases_are_those_of_the_issue() -> None:
    assert set(first_try.cases()) == {"mobilenet", "vit", "gru", "conv1d", "unet", "gcn", "spiking", "lstm"}
    keys = [first_try._key(c, 0) for c in first_try.cases().values()]
    assert len({json.dumps(k) for k in keys}) == 8
