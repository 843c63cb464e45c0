"""Accuracy against latency: validation chooses, test decides, every net counts in its fastest runtime."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.errors import UsageError
from secateur.reproduce import frontier, plan

RECIPE = {"constrain": [{"where": "*", "with": "topk"}], "budget": {"nnz": 4000}, "solver": {"name": "one_shot"}}
RAW: dict[str, Any] = {
    "about": "who is faster",
    "data": "digits",
    "seeds": [0, 1, 2],
    "n_weights": 159264,
    "values": {"net": "digits_cnn", "short": 1},
    "grid": {"size": [1, 2]},
    "parts": {
        "dense": {"title": "dense", "model": "secateur.zoo:$net", "epochs": "$short", "training": {"threads": 1}},
        "small": {"title": "small $size", "from": "dense", "recipe": RECIPE},
        "ours": {"title": "ours $size", "from": "dense", "teacher": "small", "recipe": RECIPE},
    },
    "latency": {"nets": ["small", "ours"], "against": ["onnxruntime"]},
    "frontier": {"ours": ["ours"], "control": ["small"], "margin": 0.01},
}


def times(engine: float, onnxruntime: float) -> dict[str, dict[str, float]]:
    return {"engine": {"median": engine}, "onnxruntime": {"median": onnxruntime}}


def facts(valid: float, *test: float) -> dict[int, dict[str, float]]:
    return {seed: {"valid": valid, "test": x} for seed, x in enumerate(test)}


LATENCY = {
    "latency_ms": {
        "small,size=1": times(4.0, 3.0),
        "small,size=2": times(1.0, 2.0),
        "ours,size=1": times(1.5, 9.0),
        "ours,size=2": times(0.5, 9.0),
    }
}
RUNS = {
    "small,size=1": facts(0.90, 0.90, 0.91, 0.92),
    "small,size=2": facts(0.80, 0.80, 0.81, 0.82),
    "ours,size=1": facts(0.895, 0.899, 0.909, 0.919),
    "ours,size=2": facts(0.80, 0.70, 0.71, 0.72),
}


@pytest.fixture
def study() -> plan.Study:
    return plan.checked("frontier", RAW)


def test_for_each_control_the_fastest_of_ours_that_is_as_good_on_validation(study: plan.Study) -> None:
    first, second = frontier.rows(study, RUNS, LATENCY)
    assert (first["control"], first["runtime"], first["ms"]) == ("small,size=1", "onnxruntime", 3.0)
    assert (first["ours"], first["ours_runtime"], first["times"]) == ("ours,size=1", "engine", 2.0)
    assert first["holds"] is True
    assert (second["control"], second["ours"], second["times"]) == ("small,size=2", "ours,size=2", 2.0)
    assert second["holds"] is False  # as good on validation, ten points worse on test


def test_no_net_as_good_and_too_few_seeds_are_said(study: plan.Study) -> None:
    poor = {**RUNS, "ours,size=1": facts(0.5, 0.5, 0.5, 0.5), "ours,size=2": facts(0.5, 0.5, 0.5, 0.5)}
    assert [r["ours"] for r in frontier.rows(study, poor, LATENCY)] == [None, None]
    single = {**RUNS, "ours,size=1": facts(0.895, 0.9)}
    assert frontier.rows(study, single, LATENCY)[0]["holds"] is None
    assert frontier.rows(study, RUNS, {}) == []


def test_a_cell_needs_its_start_and_its_teacher(study: plan.Study) -> None:
    cell = study.cells["ours,size=2"]
    assert (cell.start, cell.teacher, cell.needs) == ("dense", "small,size=2", ["dense", "small,size=2"])
    assert study.cells["dense"].plan["model"] == "secateur.zoo:digits_cnn"
    assert study.cells["dense"].plan["epochs"] == 1


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"teacher": "nobody"}, r"ours,size=1: teacher 'nobody' is no earlier part"),
        (
            {"from": None, "model": "a:b", "epochs": 1, "training": {}, "recipe": None},
            "teacher: only a net that starts",
        ),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(part: dict[str, Any], said: str) -> None:
    changed = {k: v for k, v in {**RAW["parts"]["ours"], **part}.items() if v is not None}
    with pytest.raises(UsageError, match=said):
        plan.checked("frontier", {**RAW, "parts": {**RAW["parts"], "ours": changed}})


def test_a_net_of_the_frontier_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="'theirs' names no part or cell"):
        plan.checked("frontier", {**RAW, "frontier": {"ours": ["theirs"], "control": ["small"]}})
