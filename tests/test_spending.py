"""The budget on disk: what a file costs beyond the estimates is booked, dead weight is no room to spend."""

from __future__ import annotations

import pytest
import torch
from tests.training.nets import mlp, weight_sites

from secateur import catalog
from secateur.errors import BudgetError
from secateur.spending import Spending
from secateur.types import Limit, Term

TOPK = catalog.load("constraints", "topk")()


def purse(nbytes_of: object, limit: float = 300.0) -> tuple[Spending, dict[str, torch.Tensor]]:
    model = mlp()
    terms = tuple(Term(s, TOPK) for s in weight_sites(model))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    return Spending(terms, (Limit("nbytes", limit),), nbytes_of), weights  # type: ignore[arg-type]


def test_the_difference_between_file_and_estimate_becomes_the_fixed_part() -> None:
    def with_overhead(near: dict[str, torch.Tensor]) -> int:
        levels = {k: int(near[k].count_nonzero()) for k in ("fc1.weight", "fc2.weight")}
        return round(asked.expected_nbytes(levels, weights)) + 120

    asked, weights = purse(with_overhead)
    assert asked.probe(weights, {}) == pytest.approx(300, abs=8)
    assert asked.fixed["nbytes"] == pytest.approx(120, abs=4)


def test_a_file_full_of_dead_weights_is_no_room_to_spend() -> None:
    asked, weights = purse(lambda near: 40)
    asked.effective = lambda w: {k: torch.zeros_like(v, dtype=torch.bool) for k, v in w.items()}
    asked.probe(weights, {})
    assert asked.fixed["nbytes"] == 0.0


def test_a_file_smaller_than_the_estimates_is_room_to_spend() -> None:
    def coded_well(near: dict[str, torch.Tensor]) -> int:
        return round(0.8 * asked.expected_nbytes({k: int(near[k].count_nonzero()) for k in names}, weights))

    names = ("fc1.weight", "fc2.weight")
    asked, weights = purse(coded_well)
    assert asked.probe(weights, {}) == pytest.approx(300, rel=0.05)
    assert asked.fixed["nbytes"] < -50


def test_fit_spends_what_the_file_leaves_and_never_more() -> None:
    asked, weights = purse(None)
    sizes: list[int] = []

    def at(levels: dict[str, object]) -> int:
        sizes.append(round(0.8 * asked.expected_nbytes(levels, weights)))  # type: ignore[arg-type]
        return sizes[-1]

    levels = asked.fit(weights, {}, at)
    assert sizes[0] < 250
    assert 290 <= at(levels) <= 300


def test_fit_tightens_until_the_file_is_small_enough() -> None:
    asked, weights = purse(None)
    sizes: list[float] = []

    def at(levels: dict[str, object]) -> int:
        sizes.append(1.3 * asked.expected_nbytes(levels, weights))  # type: ignore[arg-type]
        return round(sizes[-1])

    asked.fit(weights, {}, at)
    assert sizes[0] > 300 >= sizes[-1]
    assert sizes[-1] > 250


def test_a_size_that_never_falls_is_refused_with_the_smallest_seen() -> None:
    asked, weights = purse(None)
    with pytest.raises(BudgetError, match="the file stays at 500 bytes") as caught:
        asked.fit(weights, {}, lambda levels: 500)
    assert caught.value.smallest == 500


def test_the_way_to_the_target_is_kept_when_the_net_is_cut() -> None:
    """Half way at the old dense size means the same number of weights on the smaller net."""
    model = mlp()
    terms = tuple(Term(s, TOPK) for s in weight_sites(model))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    whole = Spending(terms, (Limit("nnz", 12),))
    cut = Spending(terms, (Limit("nnz", 12),), dense_free=10.0 * (whole.free_cost(weights) or 0.0))
    n = sum(whole.levels(weights, {}, 0.5).values())  # type: ignore[misc]
    larger = sum(cut.levels(weights, {}, 0.75).values())  # type: ignore[misc]
    assert n == pytest.approx((132 * 12) ** 0.5, abs=1)
    assert larger == pytest.approx(1320 ** (0.25) * 12**0.75, abs=1)
