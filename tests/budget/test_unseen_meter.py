"""A meter that nobody has seen, of another package: named in a budget, it is planned, met, reported and verified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.training.nets import blobs, mlp

import secateur
from secateur import catalog
from secateur.budget import kinds
from secateur.cli import methods
from secateur.data.tensors import TensorData
from secateur.errors import BudgetError, UsageError
from secateur.recipe import Recipe
from secateur.report import tables
from secateur.testing.meters import check_meter

METER = '''
"""Rows that are left."""

from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Meter


@dataclass(frozen=True)
class RowsKept(Meter):
    """Rows of the layers' matrices that are not all zero."""

    unit: ClassVar[str] = "rows"
    lowered_by: ClassVar[str] = "channels"

    def cost(self, site, packing):
        return 0.0 if site.op in ("bias", "norm") else site.shape[0] * packing.nnz / packing.n

    def measure(self, net):
        return sum(int(w.value.flatten(1).any(1).sum()) for w in net.weights if w.counted)
'''
DATA = TensorData(*blobs(128, 0), batch_size=32)
SETTINGS: dict[str, Any] = {
    "solver": {"name": "gradual", "epochs": 2, "every": 2},
    "training": {"threads": 1, "lr": 1e-2},
    "baselines": [],
    "bench": {"seconds": 0.01, "against": []},
}


@pytest.fixture(autouse=True, scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package on the path, with its entry point, as pip would leave it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "strange_meters.py").write_text(METER)
    about = folder / "strange_meters-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-meters\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[secateur.budget.meters]\nrows_kept = strange_meters:RowsKept\n")
    caches = catalog._outside, catalog.load
    sys.path.insert(0, str(folder))
    for cache in caches:
        cache.cache_clear()
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("strange_meters", None)
    for cache in caches:
        cache.cache_clear()


def compress(limit: object) -> secateur.Result:
    with torch.random.fork_rng(devices=[]):
        return secateur.compress(mlp(), DATA, valid=DATA, budget={"rows_kept": limit}, recipe=SETTINGS)


@pytest.fixture(scope="module")
def result(installed: None) -> secateur.Result:
    return compress("9")


def test_it_obeys_the_laws() -> None:
    check_meter(kinds.meter("rows_kept"))


def test_a_recipe_reads_and_writes_it() -> None:
    recipe = Recipe.from_dict({"budget": {"rows_kept": "0.1K"}, "minimise": "rows_kept"})
    assert recipe.budget == {"rows_kept": 100}
    assert Recipe.from_text(recipe.to_yaml()).budget == recipe.budget
    for wrong, said in (
        ({"budget": {"row_kept": 3}}, "did you mean 'rows_kept'"),
        ({"budget": {"rows_kept": "3 rows"}}, r"budget.rows_kept: '3 rows'; a count is needed"),
        ({"minimise": "rows_keep"}, "did you mean 'rows_kept'"),
    ):
        with pytest.raises(UsageError, match=said):
            Recipe.from_dict(wrong)


def test_the_default_sets_are_those_that_lower_it(result: secateur.Result) -> None:
    said = "no `constrain` was given: a limit on rows_kept takes rows: whole channels"
    assert any(note.startswith(said) for note in result.report["notes"])


def test_it_is_met_in_the_written_network_and_reported(result: secateur.Result) -> None:
    left = sum(int(p.flatten(1).any(1).sum()) for p in result.model.parameters() if p.ndim > 1)
    assert 5 <= left <= 9
    (row,) = result.report["budget"]
    assert {k: row[k] for k in ("name", "asked", "reached", "met")} == {
        "name": "rows_kept", "asked": 9.0, "reached": left, "met": True
    }  # fmt: skip
    assert result.report["dense"]["rows_kept"] == 15
    assert result.report["compressed"]["rows_kept"] == left
    titles, rows = tables.summary(result.report)
    (shown,) = [r for r in rows if r[0] == "rows"]
    assert dict(zip(titles, shown, strict=True)) == {
        "": "rows", "dense": "15", "compressed": str(left), "ratio": shown[-1]
    }  # fmt: skip
    assert f"budget rows_kept: asked 9, reached {left} met" in tables.budget_lines(result.report)


def test_verify_counts_it_anew(result: secateur.Result) -> None:
    found = {c["name"]: c for c in result.verify()["checks"]}
    assert found["rows of the rebuilt module"]["passed"] is True
    assert found["budget rows_kept"]["passed"] is True
    left = result.report["compressed"]["rows_kept"]
    result.report["compressed"]["rows_kept"] = left - 1
    try:
        wrong = [c["name"] for c in result.verify()["checks"] if c["passed"] is False]
    finally:
        result.report["compressed"]["rows_kept"] = left
    assert wrong == ["rows of the rebuilt module"]


def test_it_is_planned() -> None:
    found = secateur.plan(mlp(), DATA, budget={"rows_kept": 9}, recipe=SETTINGS)
    assert found["budget"] == [{"name": "rows_kept", "asked": 9.0, "predicted": found["rows_kept"]}]
    assert found["rows_kept"] == sum(r["rows_kept"] for r in found["layers"]) + found["rest"]["rows_kept"] <= 9
    assert "rows" in str(found)
    assert "budget rows_kept: asked 9, predicted" in str(found)


def test_a_limit_below_what_there_is_is_refused_with_the_nearest() -> None:
    with pytest.raises(BudgetError, match=r"rows_kept <= 2 cannot be met; the smallest network .* takes 4 rows") as e:
        compress(2)
    assert e.value.smallest == 4
    assert e.value.kind == "rows_kept"


def test_the_catalogue_lists_it() -> None:
    assert "rows_kept" in catalog.names("budget.meters")
    assert (
        methods.describe("budget.meters", "rows_kept")["summary"]
        == "Rows of the layers' matrices that are not all zero."
    )
