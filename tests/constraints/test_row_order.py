"""A set in which it matters which row stands where, and a suite that holds it to everything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Clusters, Free
from secateur.contracts import Constraint, Piece
from secateur.testing.constraints import check_constraint
from secateur.types import Level, Packing, Stage


@dataclass(frozen=True)
class Hankel(Constraint):
    """{Z : z_ij hangs on i + j only}; there is one level."""

    view: ClassVar[str] = "o_khkw_c"
    stage: ClassVar[Stage] = Stage.VALUES
    row_order: ClassVar[bool] = True

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return range(1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        return lv.whole("hankel", *lv.only_key("hankel", given, ("on",)), 0, 0)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """The weighted mean of every antidiagonal, counted from its first element."""
        lv.checked("hankel", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("hankel", weight.shape, level, self.levels((1, 1)))
        h = torch.ones_like(weight) if importance is None else importance
        out = torch.zeros_like(weight)
        at = along(weight)
        for k in range(int(at.max()) + 1):
            x, g = weight[at == k].double(), h[at == k].double()
            out[at == k] = (x[0] + ((x - x[0]) * g).sum() / max(float(g.sum()), 1e-300)).to(weight.dtype) + 0.0
        return out

    def contains(self, weight: Tensor, level: Level) -> bool:
        return level is None or bool((weight[1:, :-1] == weight[:-1, 1:]).all())

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        return Free() if level is None else Clusters(along(weight))

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        n, values = shape[0] * shape[1], sum(shape) - 1
        if level is None:
            return Packing(n, n)
        return Packing(n, n, bits=math.log2(values) + 1, n_values=values, expected_bits=0.0)  # each row tells the next

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Rows and columns stay."""
        return None


class Anyhow(Hankel):
    """The same, and says that its rows may stand in any order."""

    row_order = False


def along(weight: Tensor) -> Tensor:
    """The antidiagonal of every element."""
    return torch.arange(weight.shape[0])[:, None] + torch.arange(weight.shape[1])


def least_squares(c: Constraint, weight: NDArray[Any], level: Level, h: NDArray[Any]) -> float:
    """Every antidiagonal for itself, the minimum of sum h (w - v)^2 = sum h w^2 - (sum h w)^2 / sum h."""
    total = 0.0
    for k in range(sum(weight.shape) - 1):
        x, g = (np.fliplr(a).diagonal(weight.shape[1] - 1 - k) for a in (weight, h))
        total += float((g * x * x).sum() - (g * x).sum() ** 2 / max(g.sum(), 1e-300))
    return total


def test_a_set_of_values_may_say_that_rows_stay_where_they_are() -> None:
    check_constraint(Hankel(), oracle=least_squares)


def test_a_set_that_does_not_say_so_is_caught() -> None:
    with pytest.raises(AssertionError, match="rows reversed"):
        check_constraint(Anyhow())
