"""The budget on disk: what a file costs beyond the estimates is booked, dead weight is no room to spend."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tests.training.nets import MLP, mlp, weight_sites
from torch import Tensor, nn

import secateur
from secateur import catalog
from secateur.budget.purse import Purse
from secateur.budget.way import Way, free_cost
from secateur.constraints.all_of import AllOf
from secateur.constraints.uniform import Uniform
from secateur.contracts import Term
from secateur.errors import BudgetError
from secateur.terms import feasible
from secateur.types import Limit, Member, Site, Weights

TOPK = catalog.load("constraints", "topk")()


def purse(costs_of: object, limit: float = 300.0) -> tuple[Purse, dict[str, torch.Tensor]]:
    model = mlp()
    terms = tuple(Term(s, TOPK) for s in weight_sites(model))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    return Purse(terms, (Limit("nbytes", limit),), costs_of), weights  # type: ignore[arg-type]


def test_the_difference_between_file_and_estimate_becomes_the_fixed_part() -> None:
    seen: list[int] = []

    def with_overhead(near: dict[str, torch.Tensor]) -> dict[str, int]:
        levels = {k: int(near[k].count_nonzero()) for k in ("fc1.weight", "fc2.weight")}
        seen.append(round(asked.expected("nbytes", levels, weights)) + 120)
        return {"nbytes": seen[-1]}

    asked, weights = purse(with_overhead)
    asked.probe(weights, {})
    assert seen[-1] == pytest.approx(300, abs=8)
    assert asked.fixed["nbytes"] == pytest.approx(120, abs=4)


def test_a_file_full_of_dead_weights_is_no_room_to_spend() -> None:
    asked, weights = purse(lambda near: {"nbytes": 40})
    asked.effective = lambda w: {k: torch.zeros_like(v, dtype=torch.bool) for k, v in w.items()}
    asked.probe(weights, {})
    assert asked.fixed["nbytes"] == 0.0


def test_a_file_smaller_than_the_estimates_is_room_to_spend() -> None:
    seen: list[int] = []

    def coded_well(near: dict[str, torch.Tensor]) -> dict[str, int]:
        levels = {k: int(near[k].count_nonzero()) for k in ("fc1.weight", "fc2.weight")}
        seen.append(round(0.8 * asked.expected("nbytes", levels, weights)))
        return {"nbytes": seen[-1]}

    asked, weights = purse(coded_well)
    asked.probe(weights, {})
    assert seen[-1] == pytest.approx(300, rel=0.05)
    assert asked.fixed["nbytes"] < -50


def test_what_was_priced_within_the_limit_is_the_answer() -> None:
    """The second network costs a hair more than the first said: a third allocation would buy what nobody has priced."""
    seen: list[float] = []

    def a_hair_more(near: dict[str, torch.Tensor]) -> dict[str, float]:
        seen.append(sum(int(near[k].count_nonzero()) for k in ("fc1.weight", "fc2.weight")) + (120 if seen else 119.5))
        return {"macs": seen[-1]}

    asked, weights = purse(a_hair_more)
    asked.limits = (Limit("macs", 200.0),)
    asked.probe(weights, {}, as_priced=True)
    assert len(seen) == 2
    assert 198 < seen[-1] <= 200
    assert asked.answer is not None
    plan, near = asked.answer
    assert plan == asked.plan(weights, {})
    assert sum(int(near[k].count_nonzero()) for k in ("fc1.weight", "fc2.weight")) + 120 == seen[-1]
    asked.fixed.clear()
    asked.probe(weights, {})
    assert seen[-1] == pytest.approx(200, abs=1)  # a run spends it all


@pytest.mark.parametrize(("kind", "counted"), [("macs", False), ("nbytes", True)])
def test_values_are_projected_only_where_a_limit_counts_them(
    kind: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price asks for supports in many rounds; the values inside are a price of bytes alone, and asked for once."""
    asked: list[str] = []
    plain = Uniform.project

    def noted(self: Uniform, *given: Any) -> Tensor:
        asked.append(kind)
        return plain(self, *given)

    monkeypatch.setattr(Uniform, "project", noted)
    model = mlp()
    terms = tuple(Term(s, AllOf((TOPK, Uniform(dense=False)))) for s in weight_sites(model))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    levels = {t.site.name: (20, 4) for t in terms}
    near = Purse(terms, (Limit(kind, 200.0),))._near(levels, weights, {})
    assert bool(asked) == counted
    assert all(int(near[t.site.name].count_nonzero()) <= 20 for t in terms)
    assert (feasible.contains(terms, levels, near) == []) == counted


def test_fit_spends_what_the_file_leaves_and_never_more() -> None:
    asked, weights = purse(None)
    sizes: list[int] = []

    def at(levels: dict[str, object]) -> dict[str, int]:
        sizes.append(round(0.8 * asked.expected("nbytes", levels, weights)))  # type: ignore[arg-type]
        return {"nbytes": sizes[-1]}

    levels = asked.fit(weights, {}, at)
    assert sizes[0] < 250
    assert 290 <= at(levels)["nbytes"] <= 300


def test_fit_tightens_until_the_file_is_small_enough() -> None:
    asked, weights = purse(None)
    sizes: list[float] = []

    def at(levels: dict[str, object]) -> dict[str, float]:
        sizes.append(1.3 * asked.expected("nbytes", levels, weights))  # type: ignore[arg-type]
        return {"nbytes": sizes[-1]}

    asked.fit(weights, {}, at)
    assert sizes[0] > 300 >= sizes[-1]
    assert sizes[-1] > 250


@pytest.mark.parametrize(("step", "below"), [(15, 250), (1000, 299)])
def test_a_file_that_falls_in_coarse_steps_is_fitted_or_taken_when_it_meets_the_limit(step: int, below: int) -> None:
    """299 of 300 bytes are within the limit and not within its margin; one more bit less is far away, or nowhere."""
    asked, weights = purse(None)
    first = sum(asked.levels(weights, {}, 1.0).values())  # type: ignore[arg-type]
    seen: list[int] = []

    def at(levels: dict[str, object]) -> dict[str, int]:
        seen.append(299 if first - sum(levels.values()) < step else 250)  # type: ignore[arg-type]
        return {"nbytes": seen[-1]}

    found = asked.fit(weights, {}, at)
    assert len(seen) <= 12
    assert at(found) == {"nbytes": below}  # type: ignore[arg-type]


def test_a_size_that_never_falls_is_refused_with_the_smallest_seen() -> None:
    asked, weights = purse(None)
    with pytest.raises(BudgetError, match="the file stays at 500 bytes") as caught:
        asked.fit(weights, {}, lambda levels: {"nbytes": 500})
    assert caught.value.smallest == 500


def test_the_way_to_the_target_is_kept_when_the_net_is_cut() -> None:
    """Half way at the old dense size means the same number of weights on the smaller net."""
    model = mlp()
    terms = tuple(Term(s, TOPK) for s in weight_sites(model))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    whole = Purse(terms, (Limit("nnz", 12),))
    cut = Purse(terms, (Limit("nnz", 12),), way=Way(begin=10.0 * (free_cost(terms, whole.limits[0], weights) or 0.0)))
    n = sum(whole.levels(weights, {}, 0.5).values())  # type: ignore[misc]
    larger = sum(cut.levels(weights, {}, 0.75).values())  # type: ignore[misc]
    assert n == pytest.approx((132 * 12) ** 0.5, abs=1)
    assert larger == pytest.approx(1320 ** (0.25) * 12**0.75, abs=1)


def nine_tenths_zero() -> tuple[tuple[Term, ...], dict[str, torch.Tensor]]:
    """The tiny net with every tenth weight of each layer kept: 10 of 96 and 4 of 36."""
    model = mlp()
    weights = {k: p.detach().clone() for k, p in model.named_parameters()}
    for k in ("fc1.weight", "fc2.weight"):
        weights[k].flatten()[torch.arange(weights[k].numel()) % 10 != 0] = 0
    return tuple(Term(s, TOPK) for s in weight_sites(model)), weights


@pytest.mark.parametrize(("t", "n"), [(0.01, 13), (0.5, 9), (0.8, 7), (1.0, 6)])
def test_the_way_begins_at_what_a_sparse_net_holds(t: float, n: int) -> None:
    """From 14 weights to 6: 14^(1-t) 6^t, in whole weights. The first 72 % of a ramp from 132 would do nothing."""
    terms, weights = nine_tenths_zero()
    asked = Purse(terms, (Limit("nnz", 6),))
    asked.set_out(weights)
    assert asked.way.begin == 14
    assert sum(asked.levels(weights, {}, t).values()) == n  # type: ignore[arg-type]
    again = Purse(terms, (Limit("nnz", 6),))
    again.load(json.loads(json.dumps(asked.state())))  # a resume does not see the weights of the start
    assert again.levels(weights, {}, t) == asked.levels(weights, {}, t)


def test_a_cut_on_the_way_of_a_sparse_net_changes_nothing() -> None:
    terms, weights = nine_tenths_zero()
    asked = Purse(terms, (Limit("nnz", 6),))
    asked.set_out(weights)
    small = MLP(8, 6)
    fewer = tuple(Term(s, TOPK) for s in weight_sites(small))
    cut = Purse(fewer, asked.limits, way=Way(begin=asked.way.begin))
    there = cut.levels({k: p.detach() for k, p in small.named_parameters()}, {}, 0.5)
    assert sum(there.values()) == sum(asked.levels(weights, {}, 0.5).values())  # type: ignore[arg-type]


def test_a_net_below_the_limit_may_grow_to_it_at_once() -> None:
    terms, weights = nine_tenths_zero()
    asked = Purse(terms, (Limit("nnz", 40),))
    asked.set_out(weights)
    assert [sum(asked.levels(weights, {}, t).values()) for t in (0.1, 0.9, 1.0)] == [40, 40, 40]  # type: ignore[arg-type]


def test_dense_nets_and_sets_of_whole_rows_begin_dense() -> None:
    asked, weights = purse(None)
    asked.set_out(weights)
    assert asked.way.begin is None
    terms, sparse = nine_tenths_zero()  # 14 weights, but no row of fc1 is zero: five rows would be no small step
    rows = catalog.load("constraints", "rows")()
    asked = Purse((Term(terms[0].site, rows),), (Limit("nnz", 16),))
    asked.set_out(sparse)
    assert asked.way.begin is None


def test_given_levels_go_their_own_way_from_dense() -> None:
    terms, weights = nine_tenths_zero()
    weights["fc2.weight"] = mlp().fc2.weight.detach()
    given = (terms[0], Term(terms[1].site, TOPK, level=4, given=True))
    asked = Purse(given, (Limit("nnz", 9),))
    asked.set_out(weights)
    found = asked.levels(weights, {}, 0.25)
    assert found["fc2.weight"] == TOPK.at_tightness((3, 12), 4, 0.25) > 20  # type: ignore[operator]
    assert found["fc1.weight"] == pytest.approx(10**0.75 * 5**0.25, abs=1)


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 10)
    )


def test_macs_are_met_by_whole_channels_and_little_is_left() -> None:
    """A removed channel takes its readers' columns along; both ends of it count."""
    data = [(torch.randn(16, 1, 12, 12), torch.randint(10, (16,)))]
    recipe = {
        "constrain": [{"where": "*", "with": "rows"}],
        "solver": {"name": "one_shot", "epochs": 1},
        "baselines": [],
    }
    recipe |= {"bench": {"against": [], "seconds": 0.05}}
    report = secateur.compress(small_cnn(), data, valid=data, budget={"macs": 30_000}, recipe=recipe).report
    assert report["dense"]["macs"] == 7_200 + 73_728 + 10_240
    assert 0.8 * 30_000 <= report["compressed"]["macs"] <= 30_000


def test_weights_that_no_term_covers_count() -> None:
    data = [(torch.randn(16, 1, 12, 12), torch.randint(10, (16,)))]
    recipe = {
        "constrain": [{"where": "5", "with": "topk"}],
        "solver": {"name": "one_shot", "epochs": 1},
        "baselines": [],
    }
    recipe |= {"bench": {"against": [], "seconds": 0.05}}
    report = secateur.compress(small_cnn(), data, valid=data, budget={"nnz": 2000}, recipe=recipe).report
    assert report["compressed"]["nnz"] <= 2000
    assert report["compressed"]["nnz"] > 1950


def test_a_finished_answer_one_above_a_limit_is_refused() -> None:
    purse = Purse((), (Limit("nnz", 10.0), Limit("nbytes", 100.0)))
    purse.check({"nnz": 10, "nbytes": 100})
    for sizes in ({"nnz": 11, "nbytes": 100}, {"nnz": 10, "nbytes": 101}):
        with pytest.raises(BudgetError, match="was missed"):
            purse.check(sizes)


def test_a_net_that_one_booking_cuts_off_is_booked_between() -> None:
    """Beside what is fixed in the dense net nothing lives, beside nothing the file bursts: neither is the answer."""
    g = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(64, 64, generator=g) for n in ("a.weight", "b.weight")}
    terms = tuple(Term(Site(n, "linear", (64, 64), (Member(n),)), TOPK) for n in weights)

    def effective(now: Weights) -> dict[str, Tensor]:
        alive = sum(int(w.count_nonzero()) for w in now.values()) >= 400
        return {n: torch.full_like(w, alive, dtype=torch.bool) for n, w in now.items()}

    def costs(now: Weights) -> dict[str, float]:
        nnz = sum(int(w.count_nonzero()) for w in now.values())
        return {"nbytes": 3.2 * nnz + (2000 + 2.5 * nnz if nnz else 100)}

    purse = Purse(terms, (Limit("nbytes", 5000.0),), costs, effective)
    purse.probe(weights, {})
    booked = costs(feasible.project(terms, purse.plan(weights, {}).levels, weights))["nbytes"]
    assert 4500 <= booked <= 5000
