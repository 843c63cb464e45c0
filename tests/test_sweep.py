"""Sweeps: loosest first, each point a whole run, warm where the sets allow it; resumed, refused and failed points."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur import cli
from secateur.api import sweep
from secateur.api.sweep import Sweep
from secateur.errors import FormatError, MissingExtraError, UsageError
from secateur.report import frontier, words

NAME = Path(__file__).stem


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def recipe(**more: Any) -> dict[str, Any]:
    return {
        "model": f"{NAME}:net",
        "data": "digits",
        "dense": {"epochs": 2},
        "constrain": [{"with": "topk"}],
        "solver": {"name": "gradual", "epochs": 1},
        "baselines": [],
        "bench": {"seconds": 0.02, "against": []},
    } | more


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def stages(folder: Path) -> list[str]:
    return [s["name"] for s in json.loads((folder / "report.json").read_text())["stages"]]


def notes(folder: Path) -> str:
    return " ".join(json.loads((folder / "report.json").read_text())["notes"])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Three points, run once; nobody writes into its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield secateur.sweep(recipe(), "budget.nnz", [300, "150", "1.2K"], tmp_path_factory.mktemp("three"))


def test_limits_go_from_loose_to_tight_and_each_run_starts_from_the_one_before(three: Sweep) -> None:
    found, tmp_path = three, three.folder
    assert [r["value"] for r in found.rows] == ["1.2K", "300", "150"]
    assert found.met
    for row, most in zip(found.rows, (1200, 300, 150), strict=True):
        assert 0 < row["nnz"] <= most
        assert (tmp_path / row["folder"] / "model.sct").stat().st_size == row["nbytes"]
    names = [tmp_path / r["folder"] for r in found.rows]
    assert [("dense" in stages(f)) for f in names] == [True, False, False], "the dense net is trained once"
    assert len({r["dense_metric"] for r in found.rows}) == 1
    assert "started from" not in notes(names[0])
    assert "started from the answer of nnz=1.2K" in notes(names[1])
    assert "started from the answer of nnz=300" in notes(names[2])
    small, large = (secateur.load(f, net()) for f in (names[2], names[1]))
    assert sum(int((p != 0).sum()) for p in small.parameters()) < sum(int((p != 0).sum()) for p in large.parameters())
    with (tmp_path / "sweep.csv").open() as file:
        assert [r["nnz"] for r in csv.DictReader(file)] == [str(r["nnz"]) for r in found.rows]
    page = (tmp_path / "sweep.html").read_text()
    assert all(f"{r['folder']}/report.html" in page for r in found.rows)


def test_resume_keeps_finished_points_of_the_same_recipe(three: Sweep, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(three.folder, out)
    shutil.rmtree(out / "nnz=150")
    ran: list[str] = []
    again = secateur.sweep(recipe(), "budget.nnz", [300, 150, "1.2K"], out, resume=True, on_progress=ran.append)
    assert ran == ["nnz=150"]
    assert again.rows[:2] == three.rows[:2]
    assert (out / "nnz=150" / "model.sct").read_bytes() == (three.folder / "nnz=150" / "model.sct").read_bytes()
    other = recipe(solver={"name": "gradual", "epochs": 2})
    ran.clear()
    secateur.sweep(other, "budget.nnz", [300], out, resume=True, on_progress=ran.append)
    assert ran == ["nnz=300"], "another recipe: nothing is taken over"
    (out / "sweep.json").write_text('{"points": [{"folder": 1}]}')
    with pytest.raises(FormatError, match=r"sweep.json: damaged"):
        secateur.sweep(recipe(), "budget.nnz", [300], out, resume=True)


def test_points_start_from_the_dense_net_where_they_must_or_where_it_is_asked(tmp_path: Path) -> None:
    given = recipe(constrain=[{"with": "topk", "level": {"sparsity": 0.5}}])
    found = secateur.sweep(given, "constrain.0.level.sparsity", [0.5, 0.9], tmp_path / "given")
    assert [r["value"] for r in found.rows] == ["0.5", "0.9"]
    assert "started from the dense net" in notes(tmp_path / "given" / "sparsity=0.9")
    assert "dense" not in stages(tmp_path / "given" / "sparsity=0.9")
    secateur.sweep(recipe(), "budget.nnz", [300, 150], tmp_path / "cold", cold=True)
    assert "started from" not in notes(tmp_path / "cold" / "nnz=150")
    assert "dense" not in stages(tmp_path / "cold" / "nnz=150")


@pytest.mark.parametrize(
    ("over", "values", "said"),
    [
        ("budget.nnz", [], "no value for budget.nnz"),
        ("budget.nnz", [300, "300"], "the same value twice"),
        ("budget.nbites", [300], "nbites"),
        ("budget.nbytes", ["3 parsecs"], "parsecs"),
    ],
)
def test_bad_values_are_refused_before_anything_is_made(
    tmp_path: Path, over: str, values: list[Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        secateur.sweep(recipe(), over, values, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_which_point_was_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    path.write_text(json.dumps(recipe(constrain=[{"where": "1.weight", "with": "topk"}])))  # 240 weights stay
    argv = ["sweep", str(path), "--over", "budget.nnz=400,100", "-o", str(out), "--quiet", "--json"]
    assert cli._main(argv) == 1
    rows = json.loads(capsys.readouterr().out)["points"]
    assert [bool(r["error"]) for r in rows] == [False, True]
    assert "240" in rows[1]["error"]
    assert rows[1]["nnz"] is None
    assert rows[0]["nnz"] <= 400
    page = (out / "sweep.html").read_text()
    assert "nnz=400/report.html" in page
    assert "nnz=100/report.html" not in page
    assert cli._main([*argv[:3], "budget.nnz", *argv[4:]]) == 2
    assert "give a key and its values" in capsys.readouterr().err


def test_a_loss_is_no_percentage_and_a_page_that_cannot_be_drawn_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def undrawn(key: str, rows: Any) -> str:
        raise MissingExtraError("plotly is not installed")

    found = dict.fromkeys(sweep.COLUMNS) | {"value": "5", "met": True, "metric_name": "loss", "metric": 0.5}
    assert frontier.lines([found])[0][:3] == ["5", "0.5", words.NONE]
    assert frontier.lines([found | {"metric_name": "accuracy"}])[0][1] == "50.00 %"
    monkeypatch.setattr(frontier, "page", undrawn)
    sweep._write(tmp_path, "budget.nnz", [found])
    assert "sweep.html was not written: plotly" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sweep.csv", "sweep.json"]
