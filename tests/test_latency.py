"""Budgets in milliseconds: planned with a table, proved by a clock. Both are given here, so that no test hangs on time.

On this machine a nonzero takes a microsecond and what surrounds the layers seven; the net is 8 - 16 - 12 - 3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.nets import blobs

import secateur
from secateur import api, graph
from secateur.budget import kinds
from secateur.budget.machine import GroupPrice, LayerPrice, Machine
from secateur.budget.menus import priced
from secateur.constraints.all_of import AllOf
from secateur.constraints.blocks import Blocks
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Term
from secateur.data.tensors import TensorData
from secateur.engine import InferenceSession, clock, latency, patterned, tabulate
from secateur.engine.clock import Timing
from secateur.engine.latency import Row, Table
from secateur.engine.quantized import computes_in_integers
from secateur.errors import BudgetError, FormatError, UsageError
from secateur.proof import readings
from secateur.recipe import Recipe
from secateur.run import forms
from secateur.testing.nets import mlp
from secateur.types import Packing, Progress

DATA = TensorData(*blobs(128, 0), batch_size=32)
REST = 7.0
SETTINGS: dict[str, Any] = {
    "solver": {"name": "gradual", "epochs": 2, "every": 2},
    "training": {"threads": 1, "lr": 1e-2},
    "baselines": [],
    "bench": {"seconds": 0.01, "against": []},
}


def shapes() -> dict[str, tuple[int, ...]]:
    return {k: tuple(p.shape) for k, p in mlp().named_parameters() if p.dim() > 1}


def a_table(
    us: Callable[[int, float], float] = lambda n, d: n * d, names: dict[str, tuple[int, ...]] | None = None
) -> Table:
    rows = [
        Row(name, "Gemm", shape, "any", d, 32, us(math.prod(shape), d), 1.0)
        for name, shape in (names or shapes()).items()
        for d in (1.0, 0.5, 0.01)
    ]
    return Table("cpu", "isa", 1, 1, "engine", "", tuple(rows), {32: REST})


def milliseconds(n: float) -> float:
    return 1e-3 * (REST + n)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    latency.write(tmp_path / "table.json", a_table())
    return tmp_path / "table.json"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This machine's table and clock: what it multiplies the microseconds of nonzeros with, call by call (the last one
    stays). The dense net is the first that is timed.
    """
    factors = [1.0]

    def timed(session: InferenceSession, *how: Any) -> Timing:
        nnz = sum(step["nnz"] for step in session.explain(1, 0))
        factor = factors.pop(0) if len(factors) > 1 else factors[0]
        return Timing(factor * (REST + nnz), 0.5, 300)

    monkeypatch.setattr(clock, "timed", timed)
    monkeypatch.setattr(tabulate, "table", lambda *asked: a_table())
    return factors


def compress(limit: Any, **recipe: Any) -> secateur.Result:
    budget = limit if isinstance(limit, dict) else {"latency_ms": limit}
    asked = {**SETTINGS, "constrain": [{"where": "*", "with": "topk"}], **recipe}
    return secateur.compress(mlp(), DATA, recipe=asked, budget=budget, on_progress=False)


def kept(result: secateur.Result) -> int:
    return sum(int(p.count_nonzero()) for p in result.model.parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("given", "value"), [("0.4", 0.4), (0.4, 0.4), ("0.4ms", 0.4), ("400us", 0.4), ("2 s", 2000.0)]
)
def test_limits_are_read(given: Any, value: float) -> None:
    assert kinds.parse("latency_ms", given) == pytest.approx(value)
    with pytest.raises(ValueError, match="milliseconds are needed, as 0"):
        kinds.parse("latency_ms", "5 parsecs")


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        *[(TopK(), "any"), (Blocks(rows=8, cols=2), "8x2"), (NM(m=4), ":4"), (Rows(), "channels"), (Uniform(), "any")],
        (AllOf((Blocks(rows=4), Uniform())), "4x1"),
    ],
)
def test_sets_say_where_zeros_may_lie(constraint: Any, pattern: str) -> None:
    menu = constraint.levels((16, 8))
    assert constraint.packing((16, 8), menu[len(menu) // 2]).pattern == pattern


def test_a_layer_costs_what_its_row_says() -> None:
    layer = a_table().layers["0.weight"]
    price = LayerPrice(layer)
    assert price(Packing(128, 128)) == pytest.approx(0.128)
    assert price(Packing(128, 64)) == pytest.approx(0.064)
    assert price(Packing(128, 64, pattern="channels")) == price(Packing(64, 64)) == pytest.approx(0.064)
    assert replace(price, ratio=1.5)(Packing(128, 64)) == pytest.approx(0.096)


def test_integers_are_priced_where_activations_are_quantized() -> None:
    rows = (*a_table().rows, *(replace(r, bits=8, us=r.us / 4) for r in a_table().rows))
    layer = replace(a_table(), rows=rows).layers["0.weight"]
    asked = (Packing(128, 64, bits=7.99), Packing(128, 64))
    assert [LayerPrice(layer, integers)(p) for integers in (True, False) for p in asked] == pytest.approx(
        [0.016, 0.064, 0.064, 0.064]
    )


def test_the_dense_net_is_told_by_floats_and_the_answer_by_integers(
    machine: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (*a_table().rows, *(replace(r, bits=8, us=r.us / 4) for r in a_table().rows))
    monkeypatch.setattr(tabulate, "table", lambda *asked: replace(a_table(), rows=rows))

    def timed(session: InferenceSession, *how: Any) -> Timing:
        steps = session.explain(1, 0)
        return Timing(REST + sum(s["nnz"] / (4 if "qconv" in s["kernel"] else 1) for s in steps), 0.5, 300)

    monkeypatch.setattr(clock, "timed", timed)
    level = {"sparsity": 0.5, "bits": 8}
    found = compress(
        milliseconds(1000),
        constrain=[{"where": "*", "with": ["topk", {"name": "uniform", "per": "row"}], "level": level}],
        quantize={"weights": None, "activations": 8, "calibration": {"batches": 1}},
    )
    row = found.report["budget"][0]
    assert row["reached"] == pytest.approx(milliseconds(kept(found) / 4), rel=0.01)
    assert row["predicted"] == pytest.approx(row["reached"], rel=0.01)


def test_coupled_channels_cost_what_their_layers_cost() -> None:
    """Each group at the share s: layers with one group take s, those between two s^2."""
    model = mlp()
    traced = graph.trace(model, graph.settle(model, torch.randn(2, 8), None))
    here = Machine(a_table())
    weights = dict(model.named_parameters())
    terms = here.priced([Term(g, Rows()) for g in traced.groups], traced.groups, traced.program.shapes)
    assert [isinstance(t.site.prices["latency_ms"], GroupPrice) for t in terms] == [True, True]
    meter = kinds.meter("latency_ms")
    whole = sum(meter.cost(t.site, Packing(100, 100)) for t in terms)
    assert whole == pytest.approx(milliseconds(sum(w.numel() for w in weights.values() if w.dim() > 1) - REST))
    half = sum(meter.cost(t.site, Packing(100, 50, pattern="channels")) for t in terms)
    assert half == pytest.approx(1e-3 * (128 / 2 + 192 / 4 + 36 / 2), rel=0.02)


def test_the_files_of_a_table_are_those_that_a_run_writes() -> None:
    """In integers as asked, and narrower by every group of channels; the layers keep their names."""
    model = mlp()
    example = graph.settle(model, torch.randn(2, 8), None)
    traced = graph.trace(model, example)
    form = forms.form(model, traced, example, ["0.weight", "2.weight"])
    for bits, width, sizes in (
        (32, 1.0, [(16, 8), (12, 16), (3, 12)]),
        (8, 1.0, [(16, 8), (12, 16), (3, 12)]),
        (8, 0.5, [(8, 8), (6, 8), (3, 6)]),
    ):
        data = form(bits, width)
        assert computes_in_integers(data) == (bits == 8)
        layers = patterned.layers(patterned.parsed(data))
        assert [(x.name, x.shape) for x in layers] == list(zip(shapes(), sizes, strict=True))
        kernels = [s["kernel"] for s in InferenceSession(data, threads=1).explain(1, 0) if s["n_weights"]]
        assert sum(k.startswith("q") for k in kernels) == (2 if bits == 8 else 0)


def test_without_a_table_a_site_costs_nothing() -> None:
    model = mlp()
    site = graph.trace(model, graph.settle(model, torch.randn(2, 8), None)).sites[0]
    assert priced(Term(site, TopK()), (16, 8), 64, [kinds.meter("latency_ms")]) == (0.0,)


def test_a_table_of_another_machine_is_planned_with_and_nothing_is_timed(
    table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clock, "timed", lambda *asked: pytest.fail("timed"))
    limit = milliseconds(150)
    found = compress(limit, latency={"table": str(table)})
    row = found.report["budget"][0]
    assert row["met"] == "predicted"
    assert row["reached"] == pytest.approx(milliseconds(kept(found)))
    assert 0.9 * limit < row["reached"] <= limit
    assert "met: predicted" in str(found)
    checks = {c["name"]: c for c in found.verify()["checks"]}
    assert checks["budget latency_ms"]["passed"] is None
    assert "predicted by a table" in checks["budget latency_ms"]["note"]


def test_the_written_net_is_timed(machine: list[float]) -> None:
    limit = milliseconds(150)
    found = compress(limit)
    row = found.report["budget"][0]
    assert row["met"] is True
    assert row["runs"] == 300
    assert row["margin"] == pytest.approx(5e-4)
    assert row["reached"] == pytest.approx(row["predicted"]) == pytest.approx(milliseconds(kept(found)))
    assert 0.9 * limit < row["reached"] <= limit
    assert "300 runs" in str(found)
    assert found.report["compressed"]["latency_ms"].keys() == {"engine"}  # the column is the bench's
    assert {c["name"]: c["passed"] for c in found.verify()["checks"]}["budget latency_ms"] is True


def test_baselines_are_bought_at_the_same_price_and_the_report_can_be_written(
    machine: list[float], tmp_path: Path
) -> None:
    found = compress(milliseconds(150), baselines=["one_shot", "one_shot_raw"], solver={"name": "gradual", "epochs": 1})
    assert set(found.report["one_shot"]["latency_ms"]) == {"engine"}
    assert "latency_ms" not in found.report["one_shot_raw"]  # not written, so not timed
    assert (found.save(tmp_path / "run") / "report.html").is_file()


def test_a_slow_hour_is_told_by_the_dense_net(machine: list[float]) -> None:
    """All takes a quarter longer than the table says: known before the first level, so that nothing is trimmed."""
    machine[:] = [1.25]
    found = compress(milliseconds(150))
    assert found.report["budget"][0]["met"] is True
    assert 100 < kept(found) < 120
    assert not [s["name"] for s in found.report["stages"] if "trim" in s["name"]]


def test_a_miss_corrects_the_prices_and_retrains(machine: list[float]) -> None:
    """The table is a fifth too cheap for sparse nets: the first file misses, the next goes by what was measured."""
    machine[:] = [1.0, 1.2]
    limit = milliseconds(150)
    found = compress(limit)
    row = found.report["budget"][0]
    assert row["met"] is True
    assert 0.85 * limit < row["reached"] <= limit
    assert [s["name"] for s in found.report["stages"] if "trim" in s["name"]] == ["main.trim0.polish"]
    assert row["predicted"] == pytest.approx(row["reached"])  # by the corrected prices


def parts() -> tuple[TensorData, TensorData]:
    return DATA, DATA


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("stage", "step"), [("main.approach", 3), ("main.polish", 2), ("main.trim0.polish", 1)])
def test_a_run_with_a_limit_in_milliseconds_resumes_to_the_bit(
    stage: str, step: int, machine: list[float], tmp_path: Path
) -> None:
    """What a clock said is kept: asked again it would say something else, and the run would go another way."""
    readings_of = [1.0, 1.2, 1.1]  # the dense net, the file that misses, the one after the trim
    recipe = Recipe.from_dict(
        {
            **SETTINGS,
            "model": "secateur.testing.nets:mlp",
            "data": "tests.test_latency:parts",
            "constrain": [{"where": "*", "with": "topk"}],
            "budget": {"latency_ms": milliseconds(150)},
            "training": {**SETTINGS["training"], "checkpoint_seconds": 0},
        }
    )

    def stop(p: Progress) -> None:
        if (p.stage, p.done) == (stage, step):
            raise Killed

    machine[:] = readings_of
    api.run(recipe, tmp_path / "straight")
    machine[:] = readings_of
    with pytest.raises(Killed):
        api.run(recipe, tmp_path / "resumed", on_progress=stop)
    assert len(machine) < 3  # something was timed before
    api.run(recipe, tmp_path / "resumed", resume=True)
    for name in ("model.onnx", "model.sct", "model.safetensors", "surgery.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    straight, resumed = (json.loads((tmp_path / d / "report.json").read_text()) for d in ("straight", "resumed"))
    assert straight["budget"] == resumed["budget"]
    assert straight["budget"][0]["met"] is True


def test_a_clock_that_runs_away_is_refused_with_what_was_reached(machine: list[float]) -> None:
    machine[:] = [1.0, *(1.5 * 1.4**i for i in range(12))]
    with pytest.raises(BudgetError, match="raise the budget to") as refused:
        compress(milliseconds(150))
    assert refused.value.smallest is not None
    assert refused.value.smallest > milliseconds(150)


def test_a_refusal_names_a_value_that_a_second_run_reaches(table: Path) -> None:
    with pytest.raises(BudgetError, match="the fastest network that these constraints give takes about") as refused:
        compress(milliseconds(0) * 0.9, latency={"table": str(table)})
    assert refused.value.smallest is not None
    found = compress(refused.value.smallest, latency={"table": str(table)})
    assert found.report["budget"][0]["reached"] <= refused.value.smallest


@pytest.mark.parametrize("solver", [{"name": "one_shot", "epochs": 0}, {"name": "gradual", "epochs": 1}])
def test_a_refusal_names_little_more_than_the_tightest_net_takes(solver: dict[str, Any], table: Path) -> None:
    """Units of the layer without a set die with its neighbours' weights: it is not counted as the dense net has it."""
    ends = [{"where": name, "with": "topk"} for name in ("0.weight", "4.weight")]
    asked = {"latency": {"table": str(table)}, "solver": solver, "constrain": ends}
    with pytest.raises(BudgetError) as refused:
        compress(milliseconds(0) * 0.9, **asked)
    least = refused.value.smallest or 0.0
    assert compress(least, **asked).report["budget"][0]["reached"] <= least < milliseconds(192 / 4)


def test_layers_that_do_not_pay_stay_dense(tmp_path: Path) -> None:
    """The first layer's sparse kernels are no faster than its dense one."""
    honest, flat = a_table(), a_table(lambda n, d: float(n))
    rows = [r for r in honest.rows if r.layer != "0.weight"] + [r for r in flat.rows if r.layer == "0.weight"]
    latency.write(tmp_path / "t.json", replace(honest, rows=tuple(rows)))
    found = compress(milliseconds(128 + 60), latency={"table": str(tmp_path / "t.json")})
    rows = {row["name"]: row for row in found.report["layers"]}
    assert rows["0.weight"]["nnz"] == math.prod(rows["0.weight"]["shape"])  # less whole units that died
    assert rows["2.weight"]["nnz"] + rows["4.weight"]["nnz"] < 0.4 * (192 + 36)
    assert found.report["budget"][0]["met"] == "predicted"


def test_beside_bytes_and_in_a_plan(table: Path) -> None:
    both = {"latency_ms": milliseconds(150), "nbytes": 2000}
    recipe = {**SETTINGS, "constrain": [{"where": "*", "with": "topk"}], "latency": {"table": str(table)}}
    found = secateur.plan(mlp(), DATA, budget=both, recipe=recipe)
    assert found["binds"] == "latency_ms"
    assert found["latency_ms"] == pytest.approx(
        sum(row["latency_ms"] for row in found["layers"]) + found["rest"]["latency_ms"]
    )
    assert found["rest"]["latency_ms"] == pytest.approx(1e-3 * REST)
    assert found["latency_ms"] <= both["latency_ms"]
    assert "binds" in str(found)
    result = compress(both, latency={"table": str(table)})
    assert [row["met"] for row in result.report["budget"]] == ["predicted", True]
    assert result.report["compressed"]["nbytes"] <= 2000


def test_channels_are_sold_by_the_table(table: Path) -> None:
    found = compress(milliseconds(150), constrain=[{"where": "*", "with": "rows"}], latency={"table": str(table)})
    row = found.report["budget"][0]
    assert row["reached"] == pytest.approx(milliseconds(kept(found)))
    assert row["reached"] <= milliseconds(150)
    assert found.model.get_parameter("0.weight").shape[0] < 16


def test_milliseconds_can_be_what_is_made_small(table: Path) -> None:
    found = compress({"accuracy_drop": "90pt"}, minimise="latency_ms", latency={"table": str(table)})
    assert kept(found) < 100


def test_the_users_own_loop(machine: list[float]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    recipe = {**SETTINGS, "constrain": [{"where": "*", "with": "topk"}]}
    limit = milliseconds(150)
    example, budget = torch.randn(2, 8), {"latency_ms": limit}
    loop = secateur.Compressor(model, recipe, example, optimizer=optimizer, total_steps=8, budget=budget)
    for x, y in [b for _ in range(2) for b in DATA]:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        loop.step()
    assert milliseconds(kept(loop.finalize())) <= limit


def test_a_table_of_another_net_is_refused(tmp_path: Path) -> None:
    latency.write(tmp_path / "t.json", a_table(names={"conv.weight": (4, 4)}))
    with pytest.raises(UsageError, match=r"no rows of 0\.weight, which the recipe constrains"):
        compress("1ms", latency={"table": str(tmp_path / "t.json")})
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(FormatError, match="not a latency table"):
        compress("1ms", latency={"table": str(tmp_path / "t.json")})
    with pytest.raises(UsageError, match="cannot be read"):
        compress("1ms", latency={"table": str(tmp_path / "none.json")})


@pytest.mark.parametrize(
    ("row", "found", "passed"),
    [
        ({}, [0.9], True),
        ({}, [1.3, 1.05], True),  # the best of three
        ({}, [1.3, 1.3, 1.3], None),  # a busy machine is no proof
        ({}, [2.0, 1.9, 2.0], False),
        ({"reached": 1.1}, [0.9], False),
        ({"met": False}, [0.9], False),
        ({"cpu": "another"}, [], None),
        ({"met": "predicted"}, [], None),
    ],
)
def test_a_claim_is_timed_again(
    row: dict[str, Any], found: list[float], passed: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        def reading(self, net: Any) -> dict[str, Any]:
            return {"value": found.pop(0), "margin": 0.01}

    monkeypatch.setattr(kinds, "meter", lambda kind: Meter())
    claim = {"name": "latency_ms", "asked": 1.0, "reached": 0.95, "met": True, "margin": 0.01}
    assert readings.again({**claim, "cpu": readings._native.cpu_name(), **row}, b"")[1] is passed
    assert not found


def test_the_clock_leaves_disturbed_turns_out() -> None:
    """Every fourth turn takes ten times as long: the median is that of the others."""

    class Session:
        calls = 0

        def get_inputs(self) -> list[Any]:
            return []

        def run(self, names: Any, feeds: Any) -> None:
            Session.calls += 1

    now, turns = [0.0], [0]

    def ticks() -> float:
        now[0] += 1e-3 * (10 if Session.calls // 50 % 4 == 3 else 1)
        turns[0] += 1
        return now[0]

    found = clock.timed(Session(), 300, 15, ticks)  # type: ignore[arg-type]
    assert found.us == pytest.approx(1000, rel=0.01)
    assert found.runs >= 300
