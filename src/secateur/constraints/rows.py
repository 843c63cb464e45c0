"""Rows: whole filters, neurons or coupled channels go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Tail
from secateur.types import Level, Packing, log2_choose


@dataclass(frozen=True)
class Rows(Constraint):
    """{Z : at most k nonzero rows}; the level is k, 0..rows.

    On a `channels` site a row holds one coupled channel of all its producers, and `graph` removes it physically;
    on a plain site a row is one output.

    Reference: Zhang et al., StructADMM, arXiv:1807.11091, sec. 3 (filter-wise).
    """

    view: ClassVar[str] = "channels"
    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("rows", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Zhang et al., StructADMM, arXiv:1807.11091, sec. 3"

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return range(shape[0] + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("rows", given, self.level_keys)
        return lv.count("rows", key, value, shape[0])

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the k rows with the largest sum of h w^2 whole, zero the others.

        Nearest Z in sum h (w - z)^2. Exact: the score is the squared norm of the whole row.

        Args:
            weight: float [rows, cols]; not changed.
            level: k, 0..rows; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal norms: the lower row stays.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        lv.checked("rows", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("rows", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        assert isinstance(level, int)
        mask = lv.keep_largest(lv.gains(weight, importance).sum(dim=1), level)
        return lv.without(weight, ~mask[:, None])

    def select(self, gain: Tensor, level: Level) -> Tensor:
        assert isinstance(level, int)
        won = gain.clamp(min=0.0)
        return lv.keep_largest(won.sum(dim=1), level)[:, None] & (won > 0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        assert level is None or isinstance(level, int)
        return level is None or int((weight != 0).any(dim=1).sum()) <= level

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The nonzero rows stay, whole; their values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        return (weight != 0).any(dim=1, keepdim=True).expand_as(weight)

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level]:
        """At most k of fewer."""
        return self, lv.at_most(level, len(kept_rows))

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """The kept rows whole, and which they are."""
        rows, cols = shape
        assert level is None or isinstance(level, int)
        if level is None:
            return Packing(rows * cols, rows * cols)
        return Packing(rows * cols, level * cols, structure_bits=log2_choose(rows, level), pattern="channels")

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Tail:
        """Sums of the smallest row norms: one sort for all levels."""
        lv.checked("rows", weight, importance)
        return Tail(lv.gains(weight, importance).sum(dim=1).cpu().numpy())

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        return ((5, 2), (6, 2))

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """rows^(1-t) k^t, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(shape[0], level, tightness)
