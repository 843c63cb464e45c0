"""The page of claims: as committed, and refused where an expectation was changed after its run."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.docs.test_pages import script

from secateur.reproduce import plan, study, summary

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def tables() -> ModuleType:
    return script("tables")


def test_the_committed_page_is_the_generated_one(tables: ModuleType) -> None:
    assert (DOCS / "claims.md").read_text(encoding="utf-8") == "\n".join(tables.claims())


def test_every_claim_of_every_study_stands_on_the_page(tables: ModuleType) -> None:
    page = "\n".join(tables.claims())
    paths = [study.path(n) for n in study.names()]
    said = [c.says for p in paths for task in plan.tasks_of(p) or [None] for c in plan.read(p, task).plan.claims]
    assert said
    assert all(s in page for s in said)


def kept(folder: Path, change: Any = None) -> None:
    """A record of the narrow control in this folder, its plan changed."""
    planned = plan.read(study.path("narrow-control"))
    record = summary.build(planned, study.recorded(planned))
    if change is not None:
        record["plan"]["claims"][0]["expect"]["low"] = change
    (folder / "narrow-control.json").write_text(json.dumps(record))


def test_an_expectation_that_was_changed_after_the_run_is_refused(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    kept(tmp_path)
    list(tables.claims())
    kept(tmp_path, change=-0.5)
    with pytest.raises(SystemExit, match="changed after the run"):
        list(tables.claims())


def test_recorded_figures_are_those_of_the_study_that_made_them() -> None:
    planned = plan.read(study.path("narrow-control"))
    for cell in planned.cells.values():
        if "recorded" in cell.plan:
            name, part = cell.plan["recorded"]["source"].split(", ")
            made = json.loads((DOCS.parent / "benchmarks" / "results" / f"{name}.json").read_text())
            for seed, seen in cell.plan["recorded"]["seeds"].items():
                there = made["seeds"][str(seed)]["parts"][part]
                assert seen == {k: there[k] for k in seen}
