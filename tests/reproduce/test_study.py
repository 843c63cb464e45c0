"""A study on the bundled digits: its cells, what is kept, what is repeated, the goals, the table, the command."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reproduce.small import HERE
from typer.testing import CliRunner

from secateur import reproduce
from secateur.cli import build
from secateur.errors import UsageError
from secateur.reproduce import plan, study, summary

TRAINING = {"lr": 3e-3, "batch_size": 64, "threads": 1}
PLAN: dict[str, Any] = {
    "about": "digits, briefly",
    "data": "digits",
    "seeds": [0, 1],
    "n_weights": 792,
    "grid": {"nnz": [400, 200]},
    "goals": [
        {"part": "pruned,nnz=200", "nnz": 200, "measure": 0.0},
        {"part": "packed,nnz=200", "nbytes": 900, "measure": 0.999},
    ],
    "speed": {"part": "packed,nnz=200", "dense": "dense", "control": "pruned,nnz=200", "seconds": 0.02},
    "parts": {
        "dense": {"title": "dense", "model": f"{HERE}:convolution", "epochs": 1, "training": TRAINING},
        "pruned": {
            "title": "pruned to $nnz",
            "from": "dense",
            "recipe": {
                "constrain": [{"where": "*", "with": "topk"}],
                "budget": {"nnz": "$nnz"},
                "solver": {"name": "gradual", "epochs": 1, "every": 5},
                "training": TRAINING,
            },
        },
        "packed": {
            "title": "packed",
            "from": "pruned",
            "recipe": {
                "constrain": [{"where": "*", "with": ["topk", "codebook"]}],
                "budget": {"nbytes": "900B"},
                "solver": {"name": "one_shot", "epochs": 0.2, "polish": 0, "snap": 1.0},
                "training": TRAINING,
            },
        },
    },
}
CELLS = ["dense", "pruned,nnz=400", "pruned,nnz=200", "packed,nnz=400", "packed,nnz=200"]


def running(out: Path, raw: dict[str, Any] = PLAN, **options: Any) -> study.Running:
    return study.Running(plan.checked("digits", raw), out, **options)


def made(out: Path, raw: dict[str, Any], pattern: str = "*") -> set[str]:
    """The cells that a resumed call makes."""
    stages: list[str] = []
    running(out, raw, on_progress=lambda p: stages.append(p.stage)).one_seed(0, True, pattern)
    return {s.split()[2] for s in stages}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The cells of 200 nonzeros and one seed, made one by one by different calls."""
    out = tmp_path_factory.mktemp("study")
    assert made(out, PLAN, "dense") == {"dense"}
    assert made(out, PLAN, "pruned,nnz=200") == {"pruned,nnz=200"}
    assert made(out, PLAN, "packed,nnz=200") == {"packed,nnz=200"}
    return out, running(out).finish()


def test_written_nets_are_timed_beside_each_other_and_once(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    shutil.copytree(done[0], out)
    for name in ("model.onnx", "model.sct"):  # of a net trained from scratch the weights are enough
        (out / "seed0" / "dense" / name).unlink()
    (out / "seed0" / "pruned,nnz=200" / "model.onnx").unlink()  # of a pruned one the packed file
    asked = {"nets": ["dense", "pruned"], "against": ["onnxruntime"], "seconds": 0.02}
    raw = {**PLAN, "latency": asked, "frontier": {"ours": ["pruned"], "control": ["dense"], "margin": 1.0}}
    record = running(out, raw).finish()
    timed = record["latency"]
    assert set(timed["latency_ms"]) == {"dense", "pruned,nnz=200"}
    assert set(timed["latency_ms"]["dense"]) == {"engine", "onnxruntime"}
    assert [c["agree"] for c in timed["checks"]] == [True, True]
    assert [(r["control"], r["ours"]) for r in record["frontier"]] == [("dense", "pruned,nnz=200")]
    text = (out / "digits.md").read_text()
    assert "too few seeds for an interval" in text
    assert "all interleaved: dense: engine" in text
    assert "Test measure against latency" in (out / "digits.html").read_text()
    kept = (out / "latency.json").read_bytes()
    running(out, raw).finish()
    assert (out / "latency.json").read_bytes() == kept
    for name in ("model.onnx", "model.safetensors"):  # and so is the packed file, which was written again
        (out / "seed0" / "dense" / name).unlink()
    monkeypatch.setenv("SECATEUR_ISA", "portable")
    assert running(out, raw).finish()["latency"]["isa"] == "portable"


def test_every_finished_cell_is_counted_from_its_files(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    assert list(record["cells"]) == ["dense", "pruned,nnz=200", "packed,nnz=200"]
    assert record["n_cells"] == {"finished": 3, "all": 10, "failed": 0}
    for cell, facts in record["seeds"]["0"]["cells"].items():
        assert facts["nbytes"] == (out / "seed0" / cell / "model.sct").stat().st_size
        assert facts["same_as_onnxruntime"] in (None, facts["n_test"])
        assert facts["made"]["cpu"]
    sizes = {c: f["nnz"]["mean"] for c, f in record["cells"].items()}
    assert sizes["dense"] == PLAN["n_weights"]
    assert sizes["packed,nnz=200"] <= sizes["pruned,nnz=200"] <= 200
    assert record["cells"]["packed,nnz=200"]["nbytes"]["max"] <= 900
    assert sum(m["cells"] for m in record["machines"]) == 3


def test_goals_say_what_was_met_and_what_was_missed(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    assert [g["met"] for g in record["goals"]] == [True, False]
    text = reproduce.table(record)
    assert "met: pruned to 200: nnz <= 200" in text
    assert "MISSED: packed: nbytes <= 900" in text
    assert "3 of 10 trainings are finished" in text
    assert (out / "digits.md").read_text().splitlines()[2].startswith("| net |")
    assert json.loads((out / "digits.json").read_text()) == json.loads(json.dumps(record, allow_nan=False))


def test_a_finished_cell_is_not_made_again_and_a_missing_one_alone_is(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    assert made(out, PLAN, "*nnz=200") == set()
    (out / "seed0" / "packed,nnz=200" / "cell.json").unlink()
    assert list(running(out).finish()["cells"]) == ["dense", "pruned,nnz=200"]
    assert made(out, PLAN, "*nnz=200") == {"packed,nnz=200"}
    again = running(out).finish()["cells"]["packed,nnz=200"]
    drop = {"seconds": None}
    assert again | drop == record["cells"]["packed,nnz=200"] | drop


def test_a_finished_cell_asks_nothing_of_the_one_that_it_started_from(done: tuple[Path, dict[str, Any]]) -> None:
    out, _ = done
    facts = out / "seed0" / "pruned,nnz=200" / "cell.json"
    kept = facts.read_bytes()
    facts.unlink()
    assert made(out, PLAN, "packed,nnz=200") == set()
    facts.write_bytes(kept)


def test_a_cell_that_is_killed_goes_on_and_leaves_the_others_alone(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = done

    def killed(p: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running(out, on_progress=killed).one_seed(0, True, "pruned,nnz=400")
    assert "pruned,nnz=400" not in running(out).finish()["cells"]
    assert made(out, PLAN, "pruned") == {"pruned,nnz=400"}


def test_a_changed_recipe_repeats_its_cells_and_what_follows(done: tuple[Path, dict[str, Any]]) -> None:
    out, _ = done
    raw = copy.deepcopy(PLAN)
    raw["parts"]["pruned"]["recipe"]["solver"]["every"] = 6
    assert list(running(out, raw).finish()["cells"]) == ["dense"]
    raw["parts"]["pruned"]["title"] = "another title"
    assert made(out, raw, "packed,nnz=200") == {"pruned,nnz=200", "packed,nnz=200"}
    raw["parts"]["pruned"]["title"] = "the title alone is no other recipe"
    assert made(out, raw, "packed,nnz=200") == set()


def test_a_cell_in_the_making_is_named_to_a_second_process(done: tuple[Path, dict[str, Any]]) -> None:
    from secateur.shell import saving

    out, _ = done
    with saving.locked(out / "seed1" / "dense"), pytest.raises(UsageError, match="seed1/dense: another run"):
        running(out).one_seed(1, True, "dense")


def test_the_spread_is_over_seeds(done: tuple[Path, dict[str, Any]]) -> None:
    _, record = done
    one = record["seeds"]["0"]
    other = copy.deepcopy(one)
    first = one["cells"]["dense"]["test"]
    other["cells"]["dense"]["test"] = first - 0.02
    test = summary.build(plan.checked("digits", PLAN), {0: one, 1: other})["cells"]["dense"]["test"]
    assert test["mean"] == pytest.approx(first - 0.01)
    assert test["sd"] == pytest.approx(0.02 / 2**0.5)


def test_the_command_takes_a_file_a_task_and_cells(tmp_path: Path) -> None:
    raw = copy.deepcopy(PLAN)
    raw["tasks"] = {"short": {"parts": {"dense": {**raw["parts"]["dense"], "epochs": 0.1}}}, "long": {}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    command = ["reproduce", str(path), "--cells", "dense", "--seed", "0", "-o", str(tmp_path / "out"), "--json"]
    both = CliRunner().invoke(build(), [*command[:-3], "-o", str(tmp_path / "both"), "--json"])
    assert list(json.loads(both.stdout)["tasks"]) == ["short", "long"]
    found = CliRunner().invoke(build(), [*command, "--task", "short"])
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert record["task"]["name"] == "short"
    assert list(record["cells"]) == ["dense"]
    assert record["command"] == "secateur reproduce mine --task short"
    assert (tmp_path / "out" / "short" / "seed0" / "dense" / "model.sct").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lenet6"}, "lenet5-mnist"),
        ({"name": "lenet5-mnist", "cells": "nothing*"}, "no cell matches 'nothing\\*'; cells: dense, gradual_246x"),
        ({"name": "lenet5-mnist", "task": "fashion"}, "no task 'fashion'"),
        ({"name": "first-try", "task": "fashion"}, "leave --task out"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        reproduce.run(**options)


@pytest.mark.parametrize("name", study.names())
def test_the_shipped_studies_are_sound(name: str) -> None:
    path = study.path(name)
    for task in plan.tasks_of(path) or [None]:
        assert len(plan.read(path, task).plan.seeds) >= 3


def test_a_cell_listens_to_its_teacher_and_is_made_again_with_it(tmp_path: Path) -> None:
    recipe = {**PLAN["parts"]["pruned"]["recipe"], "objective": [{"name": "distillation"}], "budget": {"nnz": 400}}
    dense = {**PLAN["parts"]["dense"], "epochs": 0.1}
    teacher = {**PLAN["parts"]["dense"], "epochs": 0.2}
    taught = {"title": "taught", "from": "dense", "teacher": "teacher", "recipe": recipe}
    raw = {k: v for k, v in PLAN.items() if k not in ("grid", "goals", "speed")}
    raw["parts"] = {"dense": dense, "teacher": teacher, "taught": taught}
    assert made(tmp_path, raw, "taught") == {"dense", "teacher", "taught"}
    assert made(tmp_path, raw, "taught") == set()
    raw["parts"] = {**raw["parts"], "teacher": {**teacher, "epochs": 0.3}}
    assert made(tmp_path, raw, "taught") == {"teacher", "taught"}
