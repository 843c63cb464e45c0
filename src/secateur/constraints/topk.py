"""Top-k: at most `level` nonzero weights, anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Tail
from secateur.types import Level, Packing


@dataclass(frozen=True)
class TopK(Constraint):
    """{Z : at most k nonzeros}; the level is k, 0..n.

    Reference: Zhang et al., ECCV 2018, arXiv:1804.03294, sec. 3 (the projection); Zhu & Gupta, arXiv:1710.01878.
    """

    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("sparsity", "density", "nnz")
    reference: ClassVar[str] = "Zhang et al., ECCV 2018, arXiv:1804.03294, sec. 3"

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return range(shape[0] * shape[1] + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("topk", given, self.level_keys)
        return lv.count("topk", key, value, shape[0] * shape[1])

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the k largest h w^2, zero the rest.

        Nearest Z in sum h (w - z)^2. Exact, by selection of exactly k indices (never a percentile threshold).

        Args:
            weight: float [rows, cols]; not changed.
            level: k, 0..rows*cols; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal scores: the lower flat index stays.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        lv.checked("topk", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("topk", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        assert isinstance(level, int)
        mask = lv.keep_largest(lv.scores(weight, importance).flatten(), level).view_as(weight)
        return lv.without(weight, ~mask)

    def select(self, gain: Tensor, level: Level) -> Tensor:
        assert isinstance(level, int)
        won = gain > 0
        if int(won.count_nonzero()) <= level:
            return won
        return lv.keep_largest(gain.flatten(), level).view_as(gain)

    def contains(self, weight: Tensor, level: Level) -> bool:
        assert level is None or isinstance(level, int)
        return level is None or int(weight.count_nonzero()) <= level

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The support of `weight` stays; its values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level]:
        """At most k of fewer."""
        return self, lv.at_most(level, len(kept_rows) * len(kept_cols))

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        n = shape[0] * shape[1]
        assert level is None or isinstance(level, int)
        return Packing(n, n if level is None else level)

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Tail:
        """Sums of the smallest h w^2: one sort for all levels."""
        lv.checked("topk", weight, importance)
        return Tail(lv.gains(weight, importance).flatten().cpu().numpy())

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """n^(1-t) k^t weights, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(shape[0] * shape[1], level, tightness)
