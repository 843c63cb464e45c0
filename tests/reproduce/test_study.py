"""A study on the bundled digits: its parts, what is kept, what is repeated, the claims and the table."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from secateur import reproduce
from secateur.errors import UsageError
from secateur.recipe import Recipe, Training
from secateur.reproduce.study import Study, names

FOLDER = Path(reproduce.__file__).parent
TRAINING = {"lr": 3e-3, "batch_size": 64, "threads": 1}
PLAN: dict[str, Any] = {
    "about": "digits, briefly",
    "data": "digits",
    "seeds": [0, 1],
    "n_weights": 159264,
    "claims": [
        {"part": "pruned", "nnz": 4000, "accuracy": 0.0},
        {"part": "packed", "nbytes": 3000, "accuracy": 0.999},
    ],
    "speed": {"part": "packed", "dense": "dense", "control": "pruned", "seconds": 0.05},
    "parts": {
        "dense": {"title": "dense", "model": "secateur.zoo:digits_cnn", "epochs": 2, "training": TRAINING},
        "pruned": {
            "title": "pruned",
            "from": "dense",
            "recipe": {
                "constrain": [{"where": "*", "with": "topk"}],
                "budget": {"nnz": 4000},
                "solver": {"name": "gradual", "epochs": 2, "every": 5},
                "training": TRAINING,
            },
        },
        "packed": {
            "title": "packed",
            "from": "pruned",
            "recipe": {
                "constrain": [{"where": "*", "with": ["topk", "codebook"]}],
                "budget": {"nbytes": "3000B"},
                "solver": {"name": "one_shot", "epochs": 0.5, "polish": 0, "snap": 1.0},
                "training": TRAINING,
            },
        },
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One seed, run."""
    out = tmp_path_factory.mktemp("study")
    study = Study("digits", copy.deepcopy(PLAN), out)
    return out, study.record({0: study.one_seed(0, resume=False)})


def test_every_part_is_written_and_counted_from_its_files(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    for part in PLAN["parts"]:
        folder = out / "seed0" / part
        facts = record["seeds"]["0"]["parts"][part]
        assert facts["nbytes"] == (folder / "model.sct").stat().st_size
        assert facts["same_as_onnxruntime"] in (None, facts["n_test"])
    sizes = {p: record["parts"][p]["nnz"]["mean"] for p in PLAN["parts"]}
    assert sizes["dense"] == PLAN["n_weights"]
    assert sizes["packed"] <= sizes["pruned"] <= 4000
    assert record["parts"]["packed"]["nbytes"]["max"] <= 3000


def test_claims_say_what_was_met_and_what_was_missed(done: tuple[Path, dict[str, Any]]) -> None:
    _, record = done
    assert [c["met"] for c in record["claims"]] == [True, False]
    text = reproduce.table(record)
    assert "met: pruned: nnz <= 4,000" in text
    assert "MISSED: packed: nbytes <= 3,000" in text
    assert "read once" in text.replace("\n", " ")
    assert reproduce.table(record, markdown=True).splitlines()[2].startswith("| net |")
    json.dumps(record, allow_nan=False)


def test_resume_keeps_what_is_finished(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    seen: list[Any] = []
    again = Study("digits", copy.deepcopy(PLAN), out, on_progress=seen.append)
    assert again.one_seed(0, resume=True) == record["seeds"]["0"]
    assert not seen


def test_an_unfinished_part_is_left_out_when_asked(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    plan = copy.deepcopy(PLAN)
    plan["parts"]["more"] = {**plan["parts"]["packed"], "title": "never run"}
    study = Study("digits", plan, out)
    found = study.record({0: study.one_seed(0, resume=True, finished_only=True)})
    assert set(found["parts"]) == set(record["parts"])
    assert found["parts"]["packed"]["n_seeds"] == 1


def test_a_changed_recipe_repeats_its_part_and_what_follows(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    plan = copy.deepcopy(PLAN)
    plan["parts"]["pruned"]["recipe"]["solver"]["epochs"] = 1
    stages: list[str] = []
    study = Study("digits", plan, out, on_progress=lambda p: stages.append(p.stage))
    found = study.one_seed(0, resume=True)
    assert {s.split()[2] for s in stages} == {"pruned", "packed"}
    assert found["parts"]["dense"] == record["seeds"]["0"]["parts"]["dense"]
    assert found["parts"]["pruned"]["epochs"] == 1


def test_the_spread_is_over_seeds(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    one = record["seeds"]["0"]
    other = copy.deepcopy(one)
    other["parts"]["dense"]["test"] = one["parts"]["dense"]["test"] - 0.02
    test = Study("digits", PLAN, out).record({0: one, 1: other})["parts"]["dense"]["test"]
    assert test["mean"] == pytest.approx(one["parts"]["dense"]["test"] - 0.01)
    assert test["sd"] == pytest.approx(0.02 / 2**0.5)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="lenet5-mnist"):
        reproduce.run("lenet6")


@pytest.mark.parametrize("name", names())
def test_the_shipped_studies_are_sound(name: str) -> None:
    plan = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    earlier: set[str] = set()
    for part, facts in plan["parts"].items():
        if "model" in facts:
            Training.model_validate(facts["training"])
        else:
            assert facts["from"] in earlier
            Recipe.from_dict(facts["recipe"], part)
        earlier.add(part)
    assert {c["part"] for c in plan["claims"]} | {plan["speed"][k] for k in ("part", "dense", "control")} <= earlier
    assert len(plan["seeds"]) >= 3
