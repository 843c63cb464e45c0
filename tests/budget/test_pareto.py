"""Choosing options under limits and spending one pool, on numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from secateur.budget import one_pool, pareto
from secateur.budget.meters.nbytes import NBytes
from secateur.types import Member, Packing, Site

SITE = Site("w", "linear", (4, 8), (Member("w"),))


@dataclass
class Fixed:
    """Options that cannot be refined: (distance, cost, ...) each."""

    rows: list[tuple[float, ...]]

    @property
    def distance(self) -> np.ndarray:
        return np.array([r[0] for r in self.rows])

    @property
    def cost(self) -> np.ndarray:
        return np.array([r[1:] for r in self.rows])

    def zoom(self, i: int) -> int:
        return i


def choose(sites: list[list[tuple[float, ...]]], *budgets: float) -> Any:
    return pareto.choose([Fixed(s) for s in sites], np.array(budgets))  # type: ignore[arg-type]


def test_a_limit_that_is_missed_by_little_is_missed() -> None:
    assert choose([[(0.0, 104.0), (10.0, 50.0)]], 100.0) == [1]
    assert choose([[(0.0, 100.0), (10.0, 50.0)]], 100.0) == [0]


def test_every_limit_is_held() -> None:
    rows = [(0.0, 10.0, 90.0), (1.0, 60.0, 20.0), (5.0, 40.0, 40.0)]
    assert choose([rows], 50.0, 50.0) == [2]
    assert choose([rows], 70.0, 50.0) == [1]
    assert choose([rows], 9.0, 9.0) is None


def test_what_the_multipliers_leave_over_is_spent() -> None:
    """Not on the lower hull: 3 of 4 points lie above the line from (0, 100) to (10, 0)."""
    rows = [(0.0, 100.0), (6.0, 60.0), (8.0, 30.0), (10.0, 0.0)]
    assert choose([rows], 70.0) == [1]
    assert choose([rows], 59.0) == [2]
    assert choose([rows, rows], 90.0) in ([1, 2], [2, 1])


@pytest.mark.parametrize("budget", range(13))
def test_a_pool_at_one_price_is_spent_to_the_last_unit(budget: int) -> None:
    gains = [np.array([5.0, 4.0, 3.0]), np.array([9.0, 1.0, 2.0])]
    kept = one_pool.select(gains, [2.0, 2.0], float(budget))
    assert sum(kept) == min(budget // 2, 6)
    assert kept == [[0, 0], [0, 1], [1, 1], [2, 1], [3, 1], [3, 2], [3, 3]][budget // 2]


def test_what_a_unit_that_does_not_fit_leaves_goes_by_gain_per_price() -> None:
    """20 > 14: 4 are left after the first unit of price 10; four units of 3 for 1 each beat one of 8 for 4."""
    gains = [np.array([100.0, 90.0]), np.full(4, 3.0), np.array([8.0])]
    assert one_pool.select(gains, [10.0, 1.0, 4.0], 14.0) == [1, 4, 0]


def test_no_tensor_costs_more_than_its_dense_form() -> None:
    dear = Packing(8, 7, 32.0, 7)  # seven of eight positions, a table of seven values, an index of 32 bits each
    assert dear.estimate > 4 * 8 + 2
    assert NBytes().cost(SITE, dear) == 4 * 8 + 2
    cheap = Packing(1000, 10)
    assert NBytes().cost(SITE, cheap) == cheap.estimate < 100
