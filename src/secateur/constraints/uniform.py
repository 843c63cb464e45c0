"""Uniform levels: whole multiples of one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, ScaledCodes
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, DistanceCurve, Memo
from secateur.errors import ConstraintError, UsageError
from secateur.native._native import best_scales, grids_of
from secateur.types import VALUE_ENTROPY, Level, Packing, Stage

_INT8 = 127  # largest magnitude of both signs


@dataclass(frozen=True)
class Uniform(Constraint):
    """{scale * q : q whole, |q| <= top}, the scale free; the level is the number of bits b.

    Attributes:
        per: `tensor` - one scale; `row` - one scale per row (output channel).
        zero: `level` - 0 is one of the codes, top = 2^(b-1) - 1 (fits a signed b-bit integer; 2 bits = ternary);
            `free` - 0 on top of 2^b nonzero codes, top = 2^(b-1) (joint sets: a pruned weight needs no code);
            `never` - 2^b nonzero codes only (1 bit = binary).
        min_bits, max_bits: the menu's ends.
        menu: the bits that may be chosen, where they are not all between the ends.
        dense: may the budget leave the weight as it is too?

    The scale is a number of the weight's dtype and a value is scale * q rounded to it, as QuantizeLinear /
    DequantizeLinear with a float scale computes it.

    Reference: Leng et al., AAAI 2018, arXiv:1707.09870, sec. 3.2 (the set; they alternate, here the optimum is exact).
    """

    per: str = "tensor"
    zero: str = "level"
    min_bits: int = 2
    max_bits: int = 8
    menu: tuple[int, ...] | None = None
    dense: bool = True
    stage: ClassVar[Stage] = Stage.VALUES
    level_keys: ClassVar[tuple[str, ...]] = ("bits",)
    reference: ClassVar[str] = "Leng et al., AAAI 2018, arXiv:1707.09870, sec. 3.2"

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "row"):
            raise UsageError(f"uniform: per is {self.per!r}; tensor or row is possible")
        if self.zero not in ("level", "free", "never"):
            raise UsageError(f"uniform: zero is {self.zero!r}; level, free or never is possible")
        least = 2 if self.zero == "level" else 1
        if not least <= self.min_bits <= self.max_bits <= 8:
            raise UsageError(
                f"uniform(zero={self.zero}): min_bits {self.min_bits}, max_bits {self.max_bits}; "
                f"{least} <= min_bits <= max_bits <= 8 is needed"
            )
        if self.menu is not None and not (self.menu and set(self.menu) <= {*range(self.min_bits, self.max_bits + 1)}):
            raise UsageError(
                f"uniform(zero={self.zero}): menu {list(self.menu)}; bits from {self.min_bits} to {self.max_bits}, one "
                "or more, are needed"
            )

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return sorted({*self.menu}) if self.menu else range(self.min_bits, self.max_bits + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("uniform", given, self.level_keys)
        level = lv.whole("uniform", key, value, self.min_bits, self.max_bits)
        lv.on_menu("uniform", shape, level, self.levels(shape))
        return level

    def top(self, level: Level) -> int:
        """The largest code at that many bits."""
        assert isinstance(level, int)
        return (1 << (level - 1)) - (self.zero == "level")

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Round to the nearest level of the best scale.

        Nearest Z in sum h (w - z)^2. Exact: the optimal scale is found among all changes of the codes (not by a rough
        search), then rounded to the weight's dtype.

        Args:
            weight: float [rows, cols]; not changed.
            level: bits; None = dense.
            importance: h >= 0 of the same shape, or None for ones. Weights with h = 0 do not shape the scale.
        Returns:
            New tensor, same shape, dtype and device. Halfway between two levels: the smaller magnitude. `never`:
            a zero becomes +scale.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        lv.checked("uniform", weight, importance)
        if level is None:
            return weight.clone()
        if self.contains(weight, level):
            return weight + 0.0  # -0.0 would be stored as a value of its own
        size = _doubles(weight.detach().abs())
        h = np.ones_like(size) if importance is None else _doubles(importance.detach())
        groups = self._groups(weight)
        scales = best_scales(size.reshape(groups), h.reshape(groups), self.top(level), self.zero != "never")
        scale = torch.from_numpy(scales)[:, None].to(weight.dtype).double().numpy()
        ratio = size / np.where(scale > 0, scale, np.inf)
        codes = np.clip(np.ceil(ratio - 0.5), int(self.zero == "never"), self.top(level))
        signs = torch.where(weight < 0, -1, 1)
        return (torch.from_numpy(scale * codes).to(weight.device) * signs).to(weight.dtype).add_(0.0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        lv.on_menu("uniform", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        return self._codes(weight, self.top(level), self.zero == "never") is not None

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The codes stay; the scale is free."""
        if level is None:
            return Free()
        lv.on_menu("uniform", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        found = self._codes(weight, self.top(level), self.zero == "never")
        if found is None:
            raise ConstraintError(
                f"uniform {list(weight.shape)}: freeze needs a member of level {level}; project first"
            )
        return ScaledCodes(found[0], weight.clone(), self.per == "row", int(self.zero == "never"), self.top(level))

    def grid(self, weight: Tensor) -> Tensor | None:
        """The scale, or one a row (1 where all is zero); None when a code needs more than a signed byte."""
        found = self._codes(weight, _INT8, nonzero=False)
        return None if found is None else found[1]

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """log2 of the number of codes for every weight, and the scale or one a row.

        Codes of a byte and their scales are two tensors of the file. Scales a row for wider codes (`grid` is None then)
        have no place there: values as floats, in a table of all rows' values or raw where that is cheaper.
        """
        n = shape[0] * shape[1]
        if level is None:
            return Packing(n, n)
        codes = 2 * self.top(level) + (self.zero != "never")
        if self.per == "tensor" or shape[0] == 1 or self.top(level) <= _INT8:
            n_scales = 1 if self.per == "tensor" else shape[0]
            return Packing(n, n, math.log2(codes), n_scales, expected_bits=VALUE_ENTROPY * math.log2(codes))
        entries = min(2 * self.top(level) * shape[0], n) + (self.zero != "never")
        table = Packing(n, n, math.log2(entries), entries)
        return min(table, Packing(n, n), key=lambda p: p.ideal_bits)

    @property
    def keeps_zeros(self) -> bool:
        """Unless 0 is no code."""
        return self.zero != "never"

    @property
    def may_stay_dense(self) -> bool:
        return self.dense

    def with_free_zero(self) -> Uniform:
        return replace(self, zero="free") if self.zero == "never" else self

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """By projecting, once a level."""
        lv.checked("uniform", weight, importance)
        return Memo(DistanceCurve(self.project, weight, importance))

    def _groups(self, weight: Tensor) -> tuple[int, int]:
        """How many scales, of how many weights each."""
        return (1, weight.numel()) if self.per == "tensor" else (weight.shape[0], weight.shape[1])

    def _codes(self, weight: Tensor, top: int, nonzero: bool) -> tuple[Tensor, Tensor] | None:
        """Whole numbers q, |q| <= top, and scales of the dtype (one, or one a row) with scale * q == weight exactly.

        None where there are none. Of several scales the largest; 1 where all is zero.
        """
        kind = torch.finfo(weight.dtype)
        digits, least = 2 - math.frexp(kind.eps)[1], math.frexp(kind.smallest_normal)[1] - 1
        found = grids_of(_doubles(weight.detach()).reshape(self._groups(weight)), top, nonzero, digits, least)
        if found is None:
            return None
        codes, scales = (torch.from_numpy(x).to(weight.device) for x in found)
        return codes.view(weight.shape), scales.to(weight.dtype)


def _doubles(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().contiguous().numpy()
