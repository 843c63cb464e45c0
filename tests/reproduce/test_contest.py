"""A contest on tiny nets: what validation chooses, what is refused, what it costs; the shipped bake-off's cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reproduce import small

from secateur.errors import UsageError
from secateur.reproduce import contest, cost, plan, study
from secateur.reproduce.table import table
from secateur.types import Progress

TRAINING = {"lr": 3e-3, "batch_size": 64, "threads": 1}


def part(name: str, **knob: Any) -> dict[str, Any]:
    return {
        "title": f"{name} {next(iter(knob), '')} $at",
        "from": "dense",
        "recipe": {
            "constrain": ["$set.constrain"],
            "budget": {"nnz": "$set.nnz"},
            "solver": {"name": name, "epochs": 0.3, **knob},
            "training": TRAINING,
        },
    }


PLAN: dict[str, Any] = {
    "about": "two ways, briefly",
    "data": f"{small.HERE}:pictures",
    "seeds": [0],
    "n_weights": 792,
    "grid": {
        "set": {
            "weights": {"constrain": {"where": "*", "with": "topk"}, "nnz": 200},
            "filters": {"constrain": {"where": "*.channels", "with": "rows"}, "nnz": 500},
            "nothing": {"constrain": {"where": "*.channels", "with": "rows"}, "nnz": 1},
        },
        "at": [0.01, 0.5],
    },
    "parts": {
        "dense": {"title": "dense", "model": f"{small.HERE}:convolution", "epochs": 1, "training": TRAINING},
        "one_shot": {**part("one_shot"), "title": "one-shot"},
        "obs": part("obs", damping="$at"),
    },
    "contest": {"over": "set"},
    "latency": {"nets": ["*"], "against": [], "seconds": 0.01},
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("contest")
    running = study.Running(plan.checked("ways", PLAN), out)
    for pattern in ("one_shot,set=weights", "obs,set=weights*", "obs,set=filters,at=0.5", "one_shot,set=nothing"):
        running.one_seed(0, True, pattern)
    return running.finish()


def row(record: dict[str, Any], at: str, name: str) -> dict[str, Any]:
    return next(r for r in record["contest"] if (r["at"], r["part"]) == (at, name))


def test_validation_chooses_the_setting_and_ranks_the_ways(record: dict[str, Any]) -> None:
    valid = {n: c["valid"]["mean"] for n, c in record["cells"].items()}
    obs = row(record, "weights", "obs")
    assert obs["n_cells"] == 2
    assert obs["valid"] == max(valid["obs,set=weights,at=0.01"], valid["obs,set=weights,at=0.5"])
    assert valid[obs["cell"]] == obs["valid"]
    ranked = [r["valid"] for r in record["contest"] if r["at"] == "weights"]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == 2
    text = table(record)
    assert "set: weights" in text
    assert "damping" in text


def test_costs_and_the_solvers_own_outcome_stand_beside(record: dict[str, Any]) -> None:
    for name in ("obs", "one_shot"):
        found = row(record, "weights", name)
        assert found["outcomes"] == ["converged"]
        assert 0.2 < found["step"] < 5
        assert found["before_seconds"] > 0
        assert found["ms"] > 0
        assert found["nnz"] <= 200
    facts = next(iter(record["seeds"].values()))["cells"]["one_shot,set=weights"]["cost"]
    if Path("/proc/self/clear_refs").exists():
        assert facts["plain_memory"] > 0


def test_what_cannot_be_made_is_a_finding(record: dict[str, Any]) -> None:
    refused, missed = row(record, "filters", "obs"), row(record, "nothing", "one_shot")
    assert refused["cell"] is None
    assert "rows has whole rows go" in refused["why"][0]
    assert missed["cell"] is None
    assert "nnz" in missed["why"][0]
    assert record["n_cells"]["failed"] == 2
    assert "obs was not made: " in table(record)
    assert json.dumps(record)


def test_refused_is_asked_again_and_failed_is_kept(record: dict[str, Any], tmp_path: Path) -> None:
    running = study.Running(plan.checked("ways", PLAN), tmp_path)
    cell = running.study.cells["obs,set=filters,at=0.5"]
    for refused in (True, False):
        place = tmp_path / "seed0" / cell.name
        place.mkdir(parents=True, exist_ok=True)
        facts = {"plan": cell.plan, "key": running._key(cell), "failed": "why", "refused": refused}
        (place / "cell.json").write_text(json.dumps(facts))
        assert (running._final(0, cell) is None) == refused


def test_a_part_without_a_finished_cell_is_left_out(record: dict[str, Any]) -> None:
    asked = plan.checked("ways", PLAN)
    assert contest.rows(asked, {}, {}, {}) == []
    assert not [r for r in record["contest"] if (r["at"], r["part"]) == ("filters", "one_shot")]


def test_an_axis_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"contest.over: 'sets' is no axis; known: set, at"):
        plan.checked("ways", {**PLAN, "contest": {"over": "sets"}})


def test_a_watch_counts_steps_and_no_judging(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 11.0, 13.0, 50.0, 52.0])
    monkeypatch.setattr(cost.time, "process_time", lambda: next(now))
    seen: list[Progress] = []
    watch = cost.Watch(3, seen.append)
    watch._began = 0.0
    for done in range(1, 7):
        watch(Progress("main.approach", done, 9, 0.0))
    # Steps 2 and 5 took 10 and 2 seconds; 3 and 6 end an epoch, 4 follows the judging of step 3 at once.
    assert watch.facts()["step_ms"] == pytest.approx(1000 * (10.0 + 2.0 + 37.0) / 3)
    assert len(seen) == 6


@pytest.mark.parametrize("task", ["fashion", "fsdd"])
def test_solvers_of_the_shipped_bake_off_are_equally_long_and_twice_tuned(task: str) -> None:
    asked = plan.read(study.path("bake-off"), task)
    epochs = {c.plan["recipe"]["solver"]["epochs"] for c in asked.cells.values() if c.start}
    assert len(epochs) == 1
    sets = list(asked.plan.grid["set"])
    made: dict[tuple[str, str], int] = {}
    for c in asked.cells.values():
        if c.start:
            at = next(s for s in sets if f"set={s}" in c.name.split(","))
            made[c.plan["recipe"]["solver"]["name"], at] = made.get((c.plan["recipe"]["solver"]["name"], at), 0) + 1
    assert set(made.values()) == {2}
    assert {(name, at) for name in {n for n, _ in made} for at in sets} == set(made)
