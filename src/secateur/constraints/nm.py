"""N:M: at most N nonzeros in every group of M neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve
from secateur.errors import ConstraintError, UsageError
from secateur.types import Level, Packing


@dataclass(frozen=True)
class NM(Constraint):
    """{Z : at most n nonzeros in each group of m columns}; the level is n, 0..m.

    Groups run along the input channels (view `o_khkw_c`): columns must be a multiple of m.

    Reference: Zhou et al., ICLR 2021, arXiv:2102.04010, sec. 3.
    """

    m: int = 4
    view: ClassVar[str] = "o_khkw_c"
    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("n", "sparsity", "density")
    reference: ClassVar[str] = "Zhou et al., ICLR 2021, arXiv:2102.04010, sec. 3"

    def __post_init__(self) -> None:
        if not 2 <= self.m <= 256:
            raise UsageError(f"nm: m is {self.m}; 2..256 is possible")

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        self._fit(shape)
        return range(self.m + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        self._fit(shape)
        key, value = lv.only_key("nm", given, self.level_keys)
        return lv.count("nm", key, value, self.m)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the n largest h w^2 of each group of m columns.

        Nearest Z in sum h (w - z)^2. Exact.

        Args:
            weight: float [rows, cols], cols a multiple of m; not changed.
            level: n, kept per group, 0..m; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal scores: the lower column stays.
        Raises:
            ConstraintError: cols is not a multiple of m, NaN or infinity, a level off the menu.
        """
        lv.checked("nm", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("nm", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        order = self._groups(lv.scores(weight, importance)).sort(dim=1, descending=True, stable=True).indices
        dropped = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, level:], True)
        return lv.without(weight, dropped.view(weight.shape))

    def contains(self, weight: Tensor, level: Level) -> bool:
        assert level is None or isinstance(level, int)
        return level is None or bool((self._groups(weight).count_nonzero(dim=1) <= level).all())

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The support of `weight` stays; its values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def within(self, unit: str, shape: tuple[int, int], level: Level) -> float:
        assert level is None or isinstance(level, int)
        return level / self.m if unit == "row" and level is not None else 1.0

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Any rows may go, and whole groups of columns; other columns would shift the groups behind them."""
        starts = [c for c in kept_cols if c % self.m == 0]
        whole = [c for start in starts for c in range(start, start + self.m)]
        return (self, level) if whole == list(kept_cols) else None

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """n of m kept; positions priced as free ones (the format promises no less than log2 C(n, nnz))."""
        self._fit(shape)
        n = shape[0] * shape[1]
        assert level is None or isinstance(level, int)
        return Packing(n, n if level is None else n // self.m * level, pattern=f":{self.m}")

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Rank by rank over all groups: one sort for all levels."""
        lv.checked("nm", weight, importance)
        ranked = self._groups(lv.gains(weight, importance)).sort(dim=1).values.sum(dim=0)
        dropped = np.concatenate([[0.0], np.cumsum(ranked.cpu().numpy())])

        def curve(level: Level) -> float:
            assert level is None or isinstance(level, int)
            return 0.0 if level is None else float(dropped[self.m - level])

        return curve

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        return ((5, self.m), (1, 5 * self.m))

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """m^(1-t) n^t, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(self.m, level, tightness)

    def _fit(self, shape: Sequence[int]) -> None:
        if shape[1] % self.m:
            pad = math.ceil(shape[1] / self.m) * self.m - shape[1]
            raise ConstraintError(
                f"nm(m={self.m}) {list(shape)}: columns must be a multiple of {self.m}, {pad} are missing; "
                "take another m, or leave the site out with exclude="
            )

    def _groups(self, matrix: Tensor) -> Tensor:
        self._fit(matrix.shape)
        return matrix.reshape(-1, self.m)
