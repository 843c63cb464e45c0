"""Patterns: every kernel keeps a few of its places, in one of the shapes of a small library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._groups import Shape, kernel_of, shape_of
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.errors import ConstraintError, UsageError
from secateur.types import RAW_ALL, Level, Packing, Site, log2_choose

_APART = 1.25  # bits a weight by which low-bit values make positions dearer than the patterns' own numbers


@dataclass(frozen=True)
class Patterns(Constraint):
    """{Z : the support of every kernel lies in one of `library`}; the level is `entries`.

    A kernel holds the taps between one input channel and one output. The library is taken from the dense net
    (`fitted`): over the kernels of all layers of this kernel size the `size` most frequent shapes of the centre and the
    largest other weights. While it is empty every shape of `entries` places will do. Beside `kernels` (`all_of`) the
    projection is exact too: patterns first, then the kernels of which these leave most. The engine runs what is left
    weight by weight; that it follows patterns is stored only.

    Attributes:
        entries: places that a kernel keeps.
        size: shapes in the library.
        centre: does every shape of the library hold the centre of a kernel that has one?
        library: shapes as whole numbers, bit t for tap t; found from the net where none are given.
        taps: of the layer; set from the site that the set acts on.

    Reference: Ma et al., PCONV, AAAI 2020, arXiv:1909.05073; Niu et al., PatDNN, ASPLOS 2020, arXiv:2001.00138.
    """

    entries: int = 4
    size: int = 8
    centre: bool = True
    library: tuple[int, ...] = ()
    taps: int = field(default=9, kw_only=True)
    view: ClassVar[str] = "o_khkw_c"
    level_keys: ClassVar[tuple[str, ...]] = ("entries",)
    reference: ClassVar[str] = "Ma et al., PCONV, AAAI 2020, arXiv:1909.05073; Niu et al., arXiv:2001.00138"

    def __post_init__(self) -> None:
        for name in ("entries", "size", "taps"):
            if getattr(self, name) < 1:
                raise UsageError(f"patterns: {name} is {getattr(self, name)}; 1 or more is needed")
        wrong = [p for p in self.library if p < 1 or p.bit_count() != self.entries]
        if wrong:
            raise UsageError(f"patterns: library holds {wrong[0]}, which has not {self.entries} bits, one a place")

    def on(self, site: Site) -> Self:
        """With the kernel of the layer."""
        return replace(self, taps=kernel_of(site)[0])

    def unfit(self, site: Site) -> str | None:
        taps = kernel_of(site)[0]
        if taps > self.entries:
            far = [p for p in self.library if p >> taps]
            return f"patterns: library holds {far[0]}, and this {site.op} has {taps} taps" if far else None
        return f"patterns of {self.entries} places need kernels of more taps, this {site.op} has {taps}; take kernels"

    def fitted(self, matrices: Iterable[Tensor] | None) -> Patterns:
        """The library of these kernels, of all layers with as many taps; equally frequent: lower taps first."""
        if matrices is None or self.library:
            return replace(self, library=()) if matrices is None else self
        counts = torch.zeros(0)
        shapes = torch.zeros(0, self.taps)
        for matrix in matrices:
            size = self._kernels(matrix.detach().double().abs()).cpu()
            if self.centre and self.taps % 2:
                size[:, self.taps // 2] = torch.inf
            best = size.sort(dim=1, descending=True, stable=True).indices[:, : self.entries]
            there = torch.zeros_like(size).scatter_(1, best, 1.0)
            found, n = there.float().unique(dim=0, return_counts=True)
            shapes, counts = torch.cat([shapes, found]), torch.cat([counts, n.float()])
        if not len(shapes):
            return self
        shapes, where = shapes.unique(dim=0, return_inverse=True)
        total = torch.zeros(len(shapes)).index_add_(0, where, counts).flip(0)  # lower taps first
        chosen = shapes.flip(0)[total.sort(descending=True, stable=True).indices[: self.size]]
        bits = (chosen.long() << torch.arange(self.taps)).sum(dim=1)
        return replace(self, library=tuple(bits.tolist()))

    def levels(self, shape: Shape) -> Sequence[Level]:
        self._fit(shape)
        return (self.entries,)

    def parse_level(self, given: Mapping[str, Any], shape: Shape) -> Level:
        self._fit(shape)
        key, value = lv.only_key("patterns", given, self.level_keys)
        return lv.whole("patterns", key, value, self.entries, self.entries)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Give every kernel the shape in which the sum of h w^2 is largest.

        Nearest Z in sum h (w - z)^2. Exact.

        Args:
            weight: float [rows, cols], columns (tap, input), cols a multiple of the taps; not changed.
            level: `entries`; None = dense.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device. Equal sums: the shape with the lower taps.
        Raises:
            ConstraintError: cols is no multiple of the taps, NaN or infinity, a level off the menu.
        """
        lv.checked("patterns", weight, importance)
        if level is None:
            return weight.clone()
        lv.on_menu("patterns", weight.shape, level, self.levels(shape_of(weight)))
        return lv.without(weight, ~self._best(lv.gains(weight, importance)))

    def select(self, gain: Tensor, level: Level) -> Tensor:
        won = gain.clamp(min=0.0)
        return self._best(won) & (won > 0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        there = self._kernels(weight) != 0
        if not self.library:
            return int(there.sum(dim=1).max()) <= self.entries
        outside = there.float() @ (~self._shapes(weight.device)).float().T  # [kernels, shapes]
        return bool((outside == 0).any(dim=1).all())

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The support of `weight` stays; its values are free."""
        return Free() if level is None else Support(self.mask(weight, level))

    def within(self, unit: str, shape: Shape, level: Level) -> float:
        return self.entries / self.taps if level is not None and unit in ("row", "kernel") else 1.0

    def after_cut(
        self, shape: Shape, kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Any outputs and inputs may go, these at all taps."""
        n_in = shape[1] // self.taps
        left = [c for c in kept_cols if c < n_in]
        return (self, level) if [c + t * n_in for t in range(self.taps) for c in left] == list(kept_cols) else None

    def packing(self, shape: Shape, level: Level) -> Packing:
        """A shape of every kernel, and the values inside.

        The layout `sparse` finds the shapes by itself: raw values cost what numbers of shapes would, few values a bit
        each more at most.
        """
        self._fit(shape)
        n, kernels = shape[0] * shape[1], shape[0] * shape[1] // self.taps
        if level is None:
            return Packing(n, n)
        nnz = kernels * self.entries
        own = kernels * math.log2(len(self.library) or math.comb(self.taps, self.entries))
        most = min(own + _APART * nnz, log2_choose(n, nnz))
        return Packing(n, nnz, structure_bits=most, expected_bits=RAW_ALL - (most - min(own, most)) / max(nnz, 1))

    @property
    def trials(self) -> tuple[Shape, ...]:
        return (5, self.taps), (1, 2 * self.taps)

    def _fit(self, shape: Shape) -> None:
        if shape[1] % self.taps or shape[1] == 0:
            raise ConstraintError(
                f"patterns {list(shape)}: columns must be a multiple of the {self.taps} taps; take kernels, "
                "or leave the site out with exclude="
            )

    def _kernels(self, matrix: Tensor) -> Tensor:
        """[rows, (tap, input)] -> [kernels (row, input), taps]."""
        self._fit(shape_of(matrix))
        return matrix.reshape(matrix.shape[0], self.taps, -1).transpose(1, 2).reshape(-1, self.taps)

    def _shapes(self, device: torch.device) -> Tensor:
        """The library, bool [shapes, taps], those with lower taps first."""
        at = torch.arange(self.taps)
        shapes = (torch.tensor(self.library)[:, None] >> at & 1).bool()
        order = sorted(range(len(shapes)), key=lambda i: shapes[i].tolist(), reverse=True)
        return shapes[order].to(device)

    def _best(self, gain: Tensor) -> Tensor:
        """Bool mask of the best shape of every kernel."""
        kernels = self._kernels(gain)
        if self.library:
            shapes = self._shapes(gain.device)
            kept = shapes[(kernels @ shapes.to(gain.dtype).T).argmax(dim=1)]
        else:
            best = kernels.sort(dim=1, descending=True, stable=True).indices[:, : self.entries]
            kept = torch.zeros_like(kernels, dtype=torch.bool).scatter_(1, best, True)
        back = kept.view(gain.shape[0], -1, self.taps).transpose(1, 2)
        return back.reshape(gain.shape)
