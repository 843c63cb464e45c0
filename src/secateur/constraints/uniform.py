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
from secateur.constraints._scale import best_scale
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, DistanceCurve, Memo
from secateur.errors import ConstraintError, UsageError
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
        size = weight.detach().double().abs().cpu().numpy()
        h = np.ones_like(size) if importance is None else importance.detach().double().cpu().numpy()
        if self.per == "tensor":
            scales = np.array([[self._scale(size.ravel(), h.ravel(), level)]])
        else:
            scales = np.array([[self._scale(a, g, level)] for a, g in zip(size, h, strict=True)])
        scale = torch.from_numpy(scales).to(weight.dtype).double().numpy()
        ratio = size / np.where(scale > 0, scale, np.inf)
        codes = np.clip(np.ceil(ratio - 0.5), int(self.zero == "never"), self.top(level))
        signs = torch.where(weight < 0, -1, 1)
        return (torch.from_numpy(scale * codes).to(weight.device) * signs).to(weight.dtype).add_(0.0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        return level is None or all(c is not None for c in self._codes(weight, level))

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The codes stay; the scale is free."""
        if level is None:
            return Free()
        codes = self._codes(weight, level)
        if any(c is None for c in codes):
            raise ConstraintError(
                f"uniform {list(weight.shape)}: freeze needs a member of level {level}; project first"
            )
        whole = torch.cat([c for c in codes if c is not None])
        return ScaledCodes(whole, weight.clone(), self.per == "row", int(self.zero == "never"), self.top(level))

    def grid(self, weight: Tensor) -> Tensor | None:
        """The scale, or one a row (1 where all is zero); None when a code needs more than a signed byte."""
        found = [_grid_of(g, _INT8, nonzero=False) for g in self._groups(weight)]
        scales = [g[1] for g in found if g is not None]
        return torch.tensor(scales, dtype=weight.dtype) if len(scales) == len(found) else None

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

    def _scale(self, size: NDArray[np.float64], h: NDArray[np.float64], level: Level) -> float:
        h = h if h.any() else np.ones_like(h)
        return best_scale(size, h, self.top(level), self.zero != "never")

    def _codes(self, weight: Tensor, level: Level) -> list[Tensor | None]:
        """Codes per scale group ([rows, cols] in one, or [1, cols] each), None where a group is on no grid."""
        lv.on_menu("uniform", weight.shape, level, self.levels((weight.shape[0], weight.shape[1])))
        found = [_grid_of(g, self.top(level), self.zero == "never") for g in self._groups(weight)]
        return [None if g is None else g[0] for g in found]

    def _groups(self, weight: Tensor) -> list[Tensor]:
        return [weight] if self.per == "tensor" else list(weight.split(1))


def _grid_of(group: Tensor, top: int, nonzero: bool) -> tuple[Tensor, float] | None:
    """Whole numbers q, |q| <= top, and a scale of the dtype with scale * q == group exactly; None if there are none."""
    size = group.detach().abs()
    distinct, where = torch.unique(size, return_inverse=True)
    u = distinct[distinct > 0].double().cpu().numpy()
    if u.size == 0:
        return torch.zeros(group.shape, dtype=torch.int16, device=group.device), 1.0
    if u.size > top or (nonzero and u.size < distinct.numel()):
        return None
    kind = torch.finfo(group.dtype)
    slack = 0.5 * kind.eps * u + 0.5 * kind.smallest_normal * kind.eps  # half a unit in the last place
    t = np.arange(1, top + 1)[:, None]  # the code of the smallest magnitude
    q = np.rint(u / u[0] * t)
    fits = (np.abs(u - u[0] / t * q) <= 3 * slack + 3 * slack[0] * q / t).all(axis=1) & (q[:, -1] <= top)
    for row in q[fits]:
        middle = (((u - slack) / row).max() + ((u + slack) / row).min()) / 2
        near = middle + math.ldexp(kind.eps, math.frexp(middle)[1] - 1) * np.arange(-3, 4)  # the numbers around it
        scales = torch.from_numpy(near).to(group.dtype).double().numpy()
        values = torch.from_numpy(scales[:, None] * row).to(group.dtype).double().numpy()
        exact = (values == u).all(axis=1)
        if exact.any():
            codes = torch.from_numpy(np.concatenate([np.zeros(distinct.numel() - u.size), row])).to(torch.int16)
            return codes.to(group.device)[where] * group.sign().to(torch.int16), float(scales[exact.argmax()])
    return None
