"""The allocator against brute force, and its promises."""

import itertools
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from secateur.budget import one_pool
from secateur.budget.allocate import Allocator
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.errors import BudgetError, UsageError
from secateur.types import Level, Limit, Member, Packing, Site


def site(name: str, shape: tuple[int, ...], positions: int = 1) -> Site:
    return Site(name, "conv" if len(shape) > 2 else "linear", shape, (Member(name),), positions)


def sites_of(weights: dict[str, Tensor], positions: dict[str, int] | None = None) -> tuple[Term, ...]:
    return tuple(Term(site(k, tuple(w.shape), (positions or {}).get(k, 1)), TopK()) for k, w in weights.items())


def weights_of(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {k: torch.randn(*s, generator=g) for k, s in shapes.items()}


def best_by_force(weights: dict[str, Tensor], terms: tuple[Term, ...], cost, limit: float, at_least: int = 1) -> float:
    menus = [range(at_least, t.site.n + 1) for t in terms]
    best = float("inf")
    for levels in itertools.product(*menus):
        if sum(cost(t, k) for t, k in zip(terms, levels, strict=True)) <= limit:
            d = sum(t.constraint.distance(weights[t.site.name])(k) for t, k in zip(terms, levels, strict=True))
            best = min(best, d)
    return best


def distance(weights: dict[str, Tensor], terms: tuple[Term, ...], levels: dict) -> float:
    return sum(t.constraint.distance(weights[t.site.name])(levels[t.site.name]) for t in terms)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [2, 5, 9])
def test_one_pool_of_nonzeros_is_exact(seed: int, limit: int) -> None:
    w = weights_of(seed, a=(2, 3), b=(1, 5))
    terms = sites_of(w)
    levels = Allocator(terms, (Limit("nnz", limit),))(w, {})
    assert sum(levels.values()) == limit
    assert distance(w, terms, levels) == pytest.approx(best_by_force(w, terms, lambda t, k: k, limit))


@pytest.mark.parametrize("seed", range(5))
def test_one_pool_of_macs_is_within_one_unit(seed: int) -> None:
    w = weights_of(seed, a=(2, 3), b=(1, 5))
    terms = sites_of(w, {"a": 7, "b": 2})
    levels = Allocator(terms, (Limit("macs", 31),))(w, {})
    spent = levels["a"] * 7 + levels["b"] * 2
    best = best_by_force(w, terms, lambda t, k: k * t.site.positions, 31)
    largest = max(float(x.square().max()) for x in w.values())
    assert spent <= 31
    assert best - 1e-9 <= distance(w, terms, levels) <= best + largest
    assert 31 - spent < 2 or levels["b"] == 5


def test_importance_moves_the_budget() -> None:
    w = {"a": torch.ones(1, 4), "b": torch.ones(1, 4)}
    h = {"a": torch.full((1, 4), 2.0), "b": None}
    assert Allocator(sites_of(w), (Limit("nnz", 5),))(w, h) == {"a": 4, "b": 1}


def test_ties_go_to_the_earlier_site_and_every_site_keeps_its_floor() -> None:
    w = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    assert Allocator(sites_of(w), (Limit("nnz", 7),))(w, {}) == {"a": 6, "b": 1}
    assert Allocator(sites_of(w), (Limit("nnz", 7),), at_least=0)(w, {}) == {"a": 6, "b": 1}
    assert Allocator(sites_of(w), (Limit("nnz", 6),), at_least=0)(w, {}) == {"a": 6, "b": 0}
    assert Allocator(sites_of(w), (Limit("nnz", 7),), at_least=3)(w, {}) == {"a": 4, "b": 3}


def test_the_pool_is_filled_when_prices_differ() -> None:
    import numpy as np

    gains = [np.array([10.0, 9.0]), np.array([1.0, 1.0, 1.0])]
    assert one_pool.select(gains, [5.0, 1.0], 8.0) == [1, 3]  # 10 for 5, then 9 does not fit: three cheap ones do
    assert one_pool.select(gains, [5.0, 0.0], 5.0) == [1, 3]  # free of charge: all stay


@pytest.mark.parametrize("limit", [20.0, 30.0, 45.0])
@pytest.mark.parametrize("seed", range(3))
def test_bytes_against_brute_force(seed: int, limit: float) -> None:
    w = weights_of(seed, a=(2, 3), b=(1, 5))
    terms = sites_of(w)
    allocator = Allocator(terms, (Limit("nbytes", limit),))
    plan = allocator.predict(w)

    def cost(t: Term, k: int) -> float:
        return min(t.constraint.packing(t.site.shape, k).estimate, 4 * t.site.n + 2)

    best = best_by_force(w, terms, cost, limit)
    assert plan.totals[0][2] <= limit
    smallest_step = min(float(x.square().max()) for x in w.values())
    assert best - 1e-9 <= distance(w, terms, plan.levels) <= best + smallest_step


def test_bytes_are_used_to_the_last_weight() -> None:
    w = weights_of(0, conv=(50, 20, 5, 5), fc=(100, 400))
    terms = sites_of(w)
    last = float("inf")
    for limit in (500.0, 2000.0, 9000.0, 50_000.0):
        plan = Allocator(terms, (Limit("nbytes", limit),)).predict(w)
        assert 0 <= limit - plan.totals[0][2] < 8  # one more weight costs about 5 bytes
        d = sum(r.distance for r in plan.rows)
        assert d < last
        last = d


def test_several_limits_hold_together() -> None:
    w = weights_of(1, conv=(50, 20, 5, 5), fc=(100, 400))
    terms = sites_of(w, {"conv": 64})
    limits = (Limit("nbytes", 9000), Limit("macs", 30_000), Limit("nnz", 2000))
    plan = Allocator(terms, limits).predict(w)
    assert all(reached <= asked for _, asked, reached in plan.totals)
    assert any(reached > 0.95 * asked for _, asked, reached in plan.totals)


def test_tightness_leads_from_dense_to_the_target() -> None:
    w = weights_of(2, a=(30, 30), b=(40, 40))
    allocator = Allocator(sites_of(w), (Limit("nnz", 25),))
    assert allocator(w, {}, 0.0) == {"a": None, "b": None}
    counts = [sum(allocator(w, {}, t).values()) for t in (0.25, 0.5, 0.75, 1.0)]
    assert counts == [int(2500**0.75 * 25**0.25 + 1e-9), 250, int(2500**0.25 * 25**0.75 + 1e-9), 25]


def test_given_levels_are_kept_and_paid_for() -> None:
    w = weights_of(3, a=(10, 10), b=(10, 10))
    a, b = sites_of(w)
    allocator = Allocator((Term(a.site, a.constraint, 30, True), b), (Limit("nnz", 50),))
    assert allocator(w, {}) == {"a": 30, "b": 20}
    assert allocator(w, {}, 0.5) == {"a": 55, "b": 44}  # sqrt(100 * 30) and sqrt(100 * 20)


@pytest.mark.parametrize("kind", ["nnz", "nbytes", "macs"])
def test_infeasible_names_the_smallest_and_the_site(kind: str) -> None:
    w = weights_of(4, a=(10, 10), b=(20, 20))
    a, b = sites_of(w)
    allocator = Allocator((Term(a.site, a.constraint, 90, True), b), (Limit(kind, 60),), fixed={kind: 5.0})
    with pytest.raises(BudgetError, match=r"cannot be met.*smallest reachable") as caught:
        allocator(w, {})
    assert caught.value.site == "a"
    assert caught.value.smallest is not None
    met = Allocator(allocator.terms, (Limit(kind, caught.value.smallest),), fixed={kind: 5.0})
    assert met.predict(w).totals[0][2] == pytest.approx(caught.value.smallest)


def test_bad_requests() -> None:
    w = weights_of(5, a=(4, 4))
    with pytest.raises(UsageError, match="no meter"):
        Allocator(sites_of(w), (Limit("accuracy_drop", 0.01),))
    with pytest.raises(UsageError, match="neither a level nor a budget"):
        Allocator(sites_of(w), ())
    with pytest.raises(UsageError, match="positive"):
        Allocator(sites_of(w), (Limit("nnz", 0),))


def test_inputs_are_untouched_and_the_answer_repeats() -> None:
    w = weights_of(6, a=(50, 50), b=(20, 20))
    before = {k: v.clone() for k, v in w.items()}
    allocator = Allocator(sites_of(w), (Limit("nbytes", 700),))
    assert allocator(w, {}) == allocator(w, {})
    assert all(torch.equal(w[k], before[k]) for k in w)


def test_sensitivity_is_a_falling_table() -> None:
    w = weights_of(7, a=(50, 50))
    rows = Allocator(sites_of(w), (Limit("nnz", 100),)).sensitivity(w)["a"]
    assert [r[0] for r in rows] == sorted(r[0] for r in rows)
    distances = [r[2] for r in rows]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == pytest.approx(1.0)
    assert distances[-1] == 0.0


def test_importance_may_come_in_the_parameters_shape() -> None:
    w = weights_of(8, a=(3, 2, 2, 2))
    h = torch.rand(3, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    allocator = Allocator(sites_of(w), (Limit("nbytes", 40),))
    assert allocator.predict(w, {"a": h}) == allocator.predict(w, {"a": h.reshape(3, 8)})


@dataclass(frozen=True)
class FewOrShort(TopK):
    """Four weights with a long table, or sixteen with a short one: what saves nonzeros costs bytes."""

    def levels(self, shape: tuple[int, int]) -> list[int]:
        return [4, 16]

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        if level is None:
            return Packing(64, 64)
        return Packing(64, 4, 32.0, 4, 32, 1200.0) if level == 4 else Packing(64, 16, 1.0, 1, 32)


def test_limits_that_clash_are_refused_with_wider_ones_that_can_be_met() -> None:
    w = weights_of(0, a=(8, 8))
    terms = (Term(site("a", (8, 8)), FewOrShort()),)
    few, short = (FewOrShort().packing((8, 8), k).estimate for k in (4, 16))
    for limit in (Limit("nnz", 8), Limit("nbytes", (few + short) / 2)):
        assert Allocator(terms, (limit,))(w, {})["a"] is not None
    with pytest.raises(BudgetError, match=r"cannot be met together \(each alone can\)") as refused:
        Allocator(terms, (Limit("nnz", 8), Limit("nbytes", (few + short) / 2)))(w, {})
    said = re.search(r"; nnz <= (\S+), nbytes <= (\S+) can$", str(refused.value))
    assert said, str(refused.value)
    wider = Limit("nnz", float(said[1])), Limit("nbytes", float(said[2]))
    assert Allocator(terms, wider)(w, {})["a"] in (4, 16)
    assert wider[0].value < 20  # by one factor, no larger than it takes
    assert wider[1].value < 1.1 * few
