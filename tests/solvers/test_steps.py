"""Gradual and one-shot pruning step by step, on weights whose order is known; schedules, stages, averages, masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.training.nets import MLP, mlp, weight_sites
from torch import Tensor

from secateur import catalog, schedules
from secateur.budget.allocate import Allocator
from secateur.constraints.codebook import Codebook
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.solvers._stages import plan
from secateur.terms.frozen import Frozen
from secateur.terms.live import project_live
from secateur.training.average import Average
from secateur.training.phases import Snap
from secateur.types import Limit, Member, Site

SITE = Site("w", "linear", (4, 8), (Member("w"),))


def problem(k: int = 4, steps: int = 20) -> Problem:
    """32 weights 1..32 of which `k` may stay."""
    terms = (Term(SITE, TopK()),)
    return Problem(
        params={"w": torch.arange(1.0, 33.0).view(4, 8)},
        terms=terms,
        allocate=Allocator(terms, (Limit("nnz", float(k)),)),
        total_steps=steps,
        importance=lambda: {"w": None},
        learning_rate=lambda: 0.1,
    )


def run(name: str, p: Problem, steps: int, **options: Any) -> tuple[Any, Any, list[int]]:
    """The solver's state after so many steps that each add 1 to every weight, and the nonzeros on the way."""
    solver = catalog.load("solvers", name)(**options)
    state, seen = solver.init(p), []
    for _ in range(steps):
        p.params["w"].add_(1.0)
        state = solver.step(state)
        seen.append(int(p.params["w"].count_nonzero()))
    return solver, state, seen


def test_gradual_reaches_its_target_at_the_end_of_the_ramp_and_stays_there() -> None:
    solver, state, seen = run("gradual", problem(), 20, every=5, ramp=0.5, schedule="linear")
    # 32 -> 4 geometrically: half way 32^0.5 * 4^0.5 = 11.3.
    assert seen == [32] * 4 + [11] * 5 + [4] * 11
    assert solver.finish(state).levels == {"w": 4}


def test_a_short_ramp_holds_ten_prunings_unless_told_otherwise() -> None:
    _, _, seen = run("gradual", problem(steps=48), 48, schedule="linear")
    assert len(set(seen)) >= 10
    assert max(a / b for a, b in zip([32, *seen], seen, strict=False)) < 1.5
    assert seen[23:] == [4] * 25


def test_what_gradual_pruned_does_not_come_back() -> None:
    p = problem()
    run("gradual", p, 12, every=5, ramp=0.5)
    assert p.params["w"].nonzero().tolist() == [[3, 4], [3, 5], [3, 6], [3, 7]]


def test_gradual_cut_short_is_projected_at_the_final_level() -> None:
    solver, state, seen = run("gradual", problem(), 7, every=5, ramp=0.5)
    assert seen[-1] > 4
    assert int(solver.finish(state).weights["w"].count_nonzero()) == 4


def test_later_stages_go_on_where_the_earlier_ended() -> None:
    stages = plan((0.5, 1.0), (1.0, 3.0), 40)
    assert [(s.start, s.length, s.low, s.high) for s in stages] == [(0, 10, 0.0, 0.5), (10, 30, 0.5, 1.0)]
    _, _, seen = run("gradual", problem(steps=40), 40, every=5, ramp=1.0, stages=2, schedule="linear")
    assert seen == sorted(seen, reverse=True)
    assert seen[19] == 11
    assert seen[-1] == 4


def test_one_shot_prunes_at_once_and_holds() -> None:
    solver, state, seen = run("one_shot", problem(), 5)
    assert seen == [4] * 5
    assert solver.finish(state).weights["w"][3, 4:].tolist() == [34.0, 35.0, 36.0, 37.0]


@pytest.mark.parametrize(("name", "half"), [("cubic", 0.875), ("linear", 0.5), ("cosine", 0.5), ("linear_down", 0.5)])
def test_schedules_by_their_formula(name: str, half: float) -> None:
    assert schedules.get(name)(0.5) == pytest.approx(half)
    rises = schedules.get(name)(1.0) > schedules.get(name)(0.0)
    assert rises == (name in ("cubic", "linear"))
    assert schedules.get(name)(2.0) == schedules.get(name)(1.0)


def test_the_factor_of_rho_goes_from_start_to_end_geometrically() -> None:
    p = problem(steps=40)
    solver = catalog.load("solvers", "admm")(round_steps=10, start=0.1, end=100.0, stages=1, tolerance=0.0)
    state, seen = solver.init(p), []
    for _ in range(40):
        seen.append(state.factor)
        p.params["w"].add_(torch.linspace(-1.0, 1.0, 32).view(4, 8))
        state = solver.step(state)
    assert seen[::10] == pytest.approx([0.1, 1.0, 10.0, 100.0])


def test_weights_of_units_without_readers_give_their_budget_to_others() -> None:
    """Column 7 of `w` is read by nobody: the four largest others stay, and none of it."""

    def effective(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        alive = torch.ones(4, 8, dtype=torch.bool)
        alive[:, 7] = False
        return {"w": alive}

    p = problem()
    _, near = project_live(p.terms, p.allocate, dict(p.params), {"w": None}, 1.0, effective)
    assert near["w"].nonzero().tolist() == [[3, 3], [3, 4], [3, 5], [3, 6]]


def test_rounds_end_when_nothing_new_is_dead() -> None:
    """A layer of which three weights are alive cannot spend four: the second round finds nothing new."""
    asked = 0

    def effective(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal asked
        asked += 1
        alive = torch.zeros(4, 8, dtype=torch.bool)
        alive[0, :3] = True
        return {"w": alive}

    p = problem()
    _, near = project_live(p.terms, p.allocate, dict(p.params), {"w": None}, 1.0, effective)
    assert near["w"].nonzero().tolist() == [[0, 0], [0, 1], [0, 2]]
    assert asked == 9, "four are found dead in each of seven rounds, one in the next; the last finds none"


def test_what_comes_to_life_in_a_later_round_stays() -> None:
    """A row was dead beside the first round's readers; the next round reads it, and nothing is zeroed."""
    asked = 0

    def effective(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal asked
        asked += 1
        alive = torch.ones(4, 8, dtype=torch.bool)
        alive[3] = asked > 1
        return {"w": alive}

    term = Term(SITE, catalog.load("constraints", "columns")())
    w = {"w": torch.arange(1.0, 33.0).view(4, 8)}
    w["w"][3] = 0.5  # too little to change which columns stay
    levels, near = project_live((term,), lambda *_: {"w": 2}, w, {"w": None}, 1.0, effective)
    assert levels == {"w": 2}
    assert asked > 1
    assert torch.equal(near["w"][:, 6:], w["w"][:, 6:])
    assert not near["w"][:, :6].any()


def test_two_terms_on_one_parameter_hold_both() -> None:
    w = torch.arange(1.0, 33.0).view(4, 8)
    rows, few = Term(SITE, Rows()), Term(Site("again", "linear", (4, 8), (Member("w"),)), TopK())
    levels = {"w": 2, "again": 5}
    w[:2] = 0
    w[2, :] = 0
    w[2, :2] = 1.0
    w[3, 3:] = 0
    frozen = Frozen((few, rows), levels, {"w": w})
    moved = {"w": torch.ones(4, 8)}
    frozen.mask_(moved)
    assert torch.equal(moved["w"], (w != 0).float())


def test_an_average_remembers_and_forgets_by_its_decay() -> None:
    average = Average(0.9)
    for i in range(200):
        average.update({"w": torch.tensor([float(i < 100)]), "n": torch.tensor(i)})
        if i == 0:
            assert float(average.values["w"]) == 1.0
        if i == 109:
            assert float(average.values["w"]) == pytest.approx(0.9**10, rel=1e-4)
    assert int(average.values["n"]) == 199


def test_the_average_is_short_at_the_start() -> None:
    average = Average(0.999)
    average.update({"w": torch.tensor([1.0])})
    average.update({"w": torch.tensor([0.0])})
    assert float(average.values["w"]) == pytest.approx(3 / 12)


def test_snap_stops_assigning_after_its_loose_part() -> None:
    net: MLP = mlp()
    terms = tuple(Term(s, Codebook(min_entries=1)) for s in weight_sites(net))
    params = dict(net.named_parameters())
    levels = {t.site.name: 4 for t in terms}
    with torch.no_grad():
        phase = Snap(terms, levels, params, 10, every=1, loose=0.5)
        partitions = []
        for i in range(10):
            for k, p in params.items():
                p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i + len(k))))
            phase.after_step()
            partitions.append([torch.unique(params[t.site.name], return_inverse=True)[1] for t in terms])
    assert any(not torch.equal(a, b) for a, b in zip(partitions[0], partitions[4], strict=True))
    for before, after in zip(partitions[4], partitions[9], strict=True):  # tied then, tied now
        for v in before.unique():
            assert after[before == v].unique().numel() == 1
