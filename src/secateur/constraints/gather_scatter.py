"""Gather-scatter: nonzeros in groups that so many memory banks hand out at once, one from each bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._groups import Shape, kernel_of, regrouped, shape_of
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, Tail
from secateur.errors import ConstraintError, UsageError
from secateur.types import Level, Packing, Site, log2_choose


@dataclass(frozen=True)
class GatherScatter(Constraint):
    """{Z : the nonzeros are at most k groups GS(banks, per_row)}; the level is k, over all bundles of the matrix.

    Input i lies in the bank i mod `banks`. A bundle is banks / per_row neighbouring outputs, a group in it has at most
    `per_row` weights of each of them and at most one weight of every bank, so that its inputs are gathered without a
    conflict. per_row = banks is the horizontal form (a group in one row), 1 the vertical one, what lies between hybrid.
    By Koenig's theorem a bundle is so many groups as its fullest bank has weights, or its fullest row per `per_row`.

    Horizontal the projection is exact, and supports nest. Else weights are taken from the largest down, each into the
    first group from which on its row and its bank have room: no bundle keeps less than cutting its rows and its banks
    to their largest weights would. Outputs must
    be a multiple of a bundle, inputs of the banks. The engine has no kernel for it: the shape is stored only. Rows stay
    where they are (the paper's scatter of rows is left out).

    Attributes:
        banks: that hand out one input each at a time; B.
        per_row: weights of a group in one row, a divisor of the banks; k.
        taps, groups: of the layer; set from the site that the set acts on.

    Reference: Sun et al., Load-balanced gather-scatter patterns for sparse deep neural networks, arXiv:2112.10898.
    """

    banks: int = 8
    per_row: int = 8
    taps: int = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    view: ClassVar[str] = "o_khkw_c"
    nests: ClassVar[bool] = True
    level_keys: ClassVar[tuple[str, ...]] = ("groups", "sparsity", "density", "nnz")
    reference: ClassVar[str] = "Sun et al., Load-balanced gather-scatter patterns, arXiv:2112.10898"

    def __post_init__(self) -> None:
        if not 2 <= self.banks <= 256:
            raise UsageError(f"gather_scatter: banks is {self.banks}; 2..256 is possible")
        if self.per_row < 1 or self.banks % self.per_row:
            fit = [str(k) for k in range(1, self.banks + 1) if self.banks % k == 0]
            raise UsageError(
                f"gather_scatter: per_row is {self.per_row}; a divisor of the {self.banks} banks is needed: "
                f"{', '.join(fit)}"
            )
        for name in ("exact", "nests"):
            object.__setattr__(self, name, self.per_row == self.banks)

    def on(self, site: Site) -> GatherScatter:
        """With the kernel and the groups of the layer."""
        taps, groups = kernel_of(site)
        return replace(self, taps=taps, groups=groups)

    def levels(self, shape: Shape) -> Sequence[Level]:
        return range(self._bundles(shape) * (shape[1] // self.per_row) + 1)

    def parse_level(self, given: Mapping[str, Any], shape: Shape) -> Level:
        most = len(self.levels(shape)) - 1
        key, value = lv.only_key(self.name, given, self.level_keys)
        if key == "groups":
            return lv.whole(self.name, key, value, 0, most)
        return lv.count(self.name, key, value, shape[0] * shape[1]) // self.banks

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Keep the groups that hold most of the sum of h w^2.

        Nearest Z in sum h (w - z)^2 where per_row = banks; else a heuristic, no worse than the one without importance.

        Args:
            weight: float [rows, cols], columns (tap, input), inputs a multiple of the banks, rows of the bundles; not
                changed.
            level: groups kept, 0..rows * cols / banks; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal scores: the lower row, then column stays.
        Raises:
            ConstraintError: a shape that does not divide, NaN or infinity, a level off the menu.
        """
        lv.checked(self.name, weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu(self.name, weight.shape, level, self.levels(shape_of(weight)))
        assert isinstance(level, int)
        if not self.exact and self.contains(weight, level):
            return lv.without(weight, weight == 0)
        gain = lv.gains(weight, importance)
        ways = [torch.from_numpy(way >= level).to(weight.device) for way in self._ways(weight, importance)]
        return lv.without(weight, min(ways, key=lambda dropped: float(gain[dropped].sum())))

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        assert isinstance(level, int)
        there = torch.from_numpy(self._apart((weight != 0).cpu().numpy())).long()
        rows, banks = there.sum((2, 3)).amax(1), there.sum((1, 2)).amax(1)
        return int(torch.maximum((rows + self.per_row - 1) // self.per_row, banks).sum()) <= level

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The support of `weight` stays; its values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def after_cut(
        self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Whole bundles may go, and inputs, the same at all taps, where the others stay in their banks."""
        height, n_in = self._height, shape[1] // self.taps
        inputs = [c for c in kept_cols if c < n_in]
        if [c + t * n_in for t in range(self.taps) for c in inputs] != list(kept_cols):
            return None
        stay = len(inputs) % self.banks == 0 and all(c % self.banks == i % self.banks for i, c in enumerate(inputs))
        first = [r for r in kept_rows if r % height == 0]
        whole = [r for f in first for r in range(f, f + height)] == list(kept_rows)
        groups = regrouped(self.groups, shape[0], kept_rows)
        if not stay or not whole or groups is None:
            return None
        after = replace(self, groups=groups)
        smaller = (len(kept_rows), len(kept_cols))
        return after, lv.at_most(level, smaller[0] * smaller[1] // self.banks)

    def packing(self, shape: Shape, level: Level) -> Packing:
        """So many weights of each group; positions priced as free ones, for the file finds no others."""
        self._bundles(shape)
        n = shape[0] * shape[1]
        if level is None:
            return Packing(n, n)
        assert isinstance(level, int)
        nnz = level * self.banks
        return Packing(n, nnz, structure_bits=log2_choose(n, nnz))

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Group by group in the order in which they are kept: one ordering for all levels."""
        lv.checked(self.name, weight, importance)
        gain = lv.gains(weight, importance).cpu().numpy()
        n = len(self.levels(shape_of(weight))) - 1
        won: list[NDArray[np.float64]] = []
        for way in self._ways(weight, importance):
            won.append(np.bincount(way.ravel(), gain.ravel(), n).astype(np.float64))
        if self.exact:
            return Tail(won[0])
        dropped = np.min([np.concatenate([np.cumsum(w[::-1])[::-1], [0.0]]) for w in won], axis=0)

        def curve(level: Level) -> float:
            assert level is None or isinstance(level, int)
            return 0.0 if level is None else float(dropped[level])

        return curve

    @property
    def trials(self) -> tuple[Shape, ...]:
        rows, cols = self._height * self.groups, self.banks * self.taps
        n = max(-(-5 // (rows * cols)), 2)
        return (rows, n * cols), (2 * rows, 2 * cols), (rows, (n + 1) * cols)

    def at_tightness(self, shape: Shape, level: Level, tightness: float) -> Level:
        """groups^(1-t) k^t, rounded up."""
        assert level is None or isinstance(level, int)
        return None if level is None else lv.on_the_way(len(self.levels(shape)) - 1, level, tightness)

    @property
    def _height(self) -> int:
        """Rows of a bundle."""
        return self.banks // self.per_row

    def _bundles(self, shape: Sequence[int]) -> int:
        """How many bundles; ConstraintError where rows or inputs do not divide."""
        rows, inputs = shape[0] // self.groups, shape[1] // self.taps
        if shape[1] % self.taps or inputs % self.banks or inputs == 0:
            fit = [b for b in range(2, self.banks) if inputs and inputs % b == 0]
            do = f"take banks: {fit[-1]} and a divisor of it as per_row" if fit else "take topk or kernels here"
            raise ConstraintError(f"{self.name}: {inputs} inputs are no multiple of {self.banks} banks; {do}")
        if rows % self._height or rows == 0:
            fit = [
                k for k in range(self.per_row, self.banks + 1) if self.banks % k == 0 and rows % (self.banks // k) == 0
            ]
            raise ConstraintError(
                f"{self.name}: {rows} outputs are no multiple of a bundle of {self._height}; take per_row: {fit[0]}"
            )
        return shape[0] // self._height

    def _apart(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """[bundles, rows, columns of a bank, banks]."""
        self._bundles(matrix.shape)
        return matrix.reshape(matrix.shape[0] // self._height, self._height, -1, self.banks)

    def _ways(self, weight: Tensor, importance: Tensor | None) -> list[NDArray[np.int64]]:
        """For every weight the place of its group among all that are kept one after the other; one way or two."""
        asked = [importance] if self.exact or importance is None else [importance, None]
        found = []
        for h in asked:
            gain = self._apart(lv.gains(weight, h).cpu().numpy())
            group = self._grouped(gain)
            bundles, n = len(gain), gain[0].size // self.banks
            flat = (group + n * np.arange(bundles)[:, None, None, None]).ravel()
            won = np.bincount(flat, gain.ravel(), bundles * n).reshape(bundles, n)
            worth = np.minimum.accumulate(won, axis=1).ravel()  # a group is not kept before those ahead of it
            place = np.empty(bundles * n, dtype=np.int64)
            place[np.argsort(-worth, kind="stable")] = np.arange(bundles * n)
            found.append(place[flat].reshape(tuple(weight.shape)))
        return found

    def _grouped(self, gain: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of every weight's group in its bundle."""
        if self.exact:
            order = np.argsort(-gain, axis=2, kind="stable")
            rank = np.empty_like(order)
            np.put_along_axis(rank, order, np.arange(gain.shape[2]).reshape(1, 1, -1, 1), axis=2)
            return rank
        bundles, height, _, banks = gain.shape
        n = gain[0].size // banks
        order = np.argsort(-gain.reshape(bundles, -1), axis=1, kind="stable")
        room_r = np.repeat(self.per_row * np.arange(1, n + 1)[None, None], bundles, 0).repeat(height, 1)
        room_b = np.repeat(np.arange(1, n + 1)[None, None], bundles, 0).repeat(banks, 1)
        group = np.empty((bundles, gain[0].size), dtype=np.int64)
        at, steps = np.arange(bundles), np.arange(n)
        for one in order.T:  # the next largest of each bundle
            row, bank = one // (gain[0].size // height), one % banks
            full = (room_r[at, row] < 1) | (room_b[at, bank] < 1)
            first = np.where(full.any(1), n - np.argmax(full[:, ::-1], axis=1), 0)
            group[at, one] = first
            taken = steps >= first[:, None]
            room_r[at, row] -= taken
            room_b[at, bank] -= taken
        return group.reshape(gain.shape)
