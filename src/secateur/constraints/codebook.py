"""Codebook: few distinct values, chosen freely."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._kmeans import Line
from secateur.constraints._pieces import Clusters, Free
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, Memo
from secateur.errors import ConstraintError, UsageError
from secateur.native._native import KMeans
from secateur.types import VALUE_ENTROPY, Level, Packing, Stage

_LEAST_ENTRIES = 4  # of the default menu


@dataclass(frozen=True)
class Codebook(Constraint):
    """{Z : at most m distinct values}; the level is m.

    Attributes:
        min_entries, max_entries: the menu's ends. By default the budget chooses from 4 entries on (from `max_entries`
            where that is less), and a given level may be smaller. The allocator sees the projection's error and not
            what retraining mends. A compromise, not a finding: LeNet-300-100 at equal bytes (one seed, 5,000 validation
            images) reached 95.1, 95.5, 95.6 % on MNIST at 6 KB and 87.9, 87.7, 87.1 % on Fashion-MNIST at 12 KB with
            menus from 2, 4 and 8 entries on; the standard errors are 0.3 and 0.5 points.
        zero: `level` - zero is a value like any other; `free` - zeros come on top of the m values (a pruned
            weight costs no entry; joint sets use this).
        value_format: `float32` or `float16`: what a value is stored in. With `float16` the optimal centres are
            rounded, which makes the projection a heuristic (off by the rounding).
        mantissa_bits: keep only so many mantissa bits of a value (None = all of the format's): the format stores no
            trailing zero bits, so a file of many small codebooks shrinks by about one bit a value for each bit cut.
        exact_below: up to that many distinct input values the projection is exact; above, the recursion runs on some
            2,048 cut positions and Lloyd's iteration finishes.

    Reference: Han et al., ICLR 2016, arXiv:1510.00149, sec. 3; exact 1-D k-means: Wang & Song, R Journal 3(2), 2011.
    """

    min_entries: int | None = None
    max_entries: int = 256
    zero: str = "level"
    value_format: str = "float32"
    mantissa_bits: int | None = None
    exact_below: int = 32768
    stage: ClassVar[Stage] = Stage.VALUES
    level_keys: ClassVar[tuple[str, ...]] = ("entries", "bits")
    reference: ClassVar[str] = "Han et al., ICLR 2016, arXiv:1510.00149, sec. 3"

    def __post_init__(self) -> None:
        if self.zero not in ("level", "free"):
            raise UsageError(f"codebook: zero is {self.zero!r}; level or free is possible")
        if self.value_format not in ("float32", "float16"):
            raise UsageError(f"codebook: value_format is {self.value_format!r}; float32 or float16 is possible")
        most = 10 if self.value_format == "float16" else 23
        if self.mantissa_bits is not None and not 0 <= self.mantissa_bits <= most:
            raise UsageError(
                f"codebook(value_format={self.value_format}): mantissa_bits is {self.mantissa_bits}; "
                f"0..{most} or None is possible"
            )
        if not 1 <= self._smallest <= self.max_entries <= 65536:
            raise UsageError(
                f"codebook: min_entries {self._smallest}, max_entries {self.max_entries}; "
                "1 <= min_entries <= max_entries <= 65536 is needed"
            )

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        least = min(_LEAST_ENTRIES, self.max_entries) if self.min_entries is None else self.min_entries
        return range(least, self.max_entries + 1)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("codebook", given, self.level_keys)
        if key == "bits":
            value = 2 ** lv.whole("codebook", key, value, 0, 16)
        return lv.whole("codebook", "entries", value, self._smallest, self.max_entries)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Weighted 1-D k-means with m centres; every weight goes to the nearest one.

        Nearest Z in sum h (w - z)^2. Exact for `value_format="float32"` and at most `exact_below` distinct values.

        Args:
            weight: float [rows, cols]; not changed.
            level: m, the number of values; None = dense.
            importance: h >= 0 of the same shape, or None for ones. Weights with h = 0 do not shape the codebook.
        Returns:
            New tensor, same shape, dtype and device. Halfway between two values: the lower value.
        Raises:
            ConstraintError: NaN or infinity, a level off the menu, an importance that does not fit.
        """
        return self._projector(weight, level, importance)(None)

    def masked(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """As `project`, of the kept weights only; sorted once for all masks."""
        return self._projector(weight, level, importance)

    def contains(self, weight: Tensor, level: Level) -> bool:
        if level is None:
            return True
        most = self._on_menu(weight, level)
        values = lv.distinct(weight, most + 1 if self.zero == "free" else most)
        if values is None:
            return False
        if self._rounds:
            own = values.double().cpu().numpy()
            if not np.array_equal(self._round(own), own):
                return False
        return self.zero == "level" or int((values != 0).sum()) <= most

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """Equal values stay equal, each set of them with one free value; with `zero="free"` zeros stay zero."""
        if level is None:
            return Free()
        if not self.contains(weight, level):
            raise ConstraintError(
                f"codebook {list(weight.shape)}: freeze needs a member of level {level}; project first"
            )
        values, labels = torch.unique(weight, return_inverse=True)
        if self.zero == "free":
            order = torch.cumsum(values != 0, 0) - 1
            labels = torch.where(values == 0, -1, order)[labels]
        return Clusters(labels, _gap(weight, values))

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """Every weight an index of log2(m) bits (m + 1 values with a free zero), and m entries."""
        n = shape[0] * shape[1]
        if level is None:
            return Packing(n, n)
        assert isinstance(level, int)
        head, mantissa = (6, 10) if self.value_format == "float16" else (9, 23)
        entry_bits = head + (mantissa if self.mantissa_bits is None else self.mantissa_bits)
        bits = math.log2(level + (self.zero == "free"))
        return Packing(n, n, bits, min(level, n), entry_bits, expected_bits=VALUE_ENTROPY * bits)

    @property
    def keeps_zeros(self) -> bool:
        """Where zeros come on top; as values like any other they go to the nearest one."""
        return self.zero == "free"

    @property
    def rounding(self) -> float:
        """Of the file's format and the mantissa bits."""
        bits = [] if self.mantissa_bits is None else [self.mantissa_bits]
        return max((2.0**-b for b in bits + ([10] if self.value_format == "float16" else [])), default=0.0)

    def with_free_zero(self) -> Codebook:
        return replace(self, zero="free")

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """One recursion for all m; each value remembered."""
        lv.checked("codebook", weight, importance)
        line = self._line(weight, importance)
        solver = line.solver()

        def compute(level: Level) -> float:
            if self.contains(weight, level):
                return 0.0
            z = self._nearest(weight, line, solver, self._on_menu(weight, level))
            return float(lv.gains(weight.double() - z.double(), importance).sum())

        return Memo(compute)

    def _on_menu(self, weight: Tensor, level: Level) -> int:
        lv.on_menu("codebook", weight.shape, level, range(self._smallest, self.max_entries + 1))
        assert isinstance(level, int)
        return level

    def _projector(self, weight: Tensor, level: Level, importance: Tensor | None) -> Callable[[Tensor | None], Tensor]:
        lv.checked("codebook", weight, importance)
        if level is None:
            return lambda kept: weight.clone()
        if self.contains(weight, level):
            return lambda kept: weight + 0.0  # -0.0 would be stored as a value of its own
        m, line = self._on_menu(weight, level), self._line(weight, importance)

        def project(kept: Tensor | None) -> Tensor:
            chosen = None if kept is None else kept.flatten().cpu().numpy()
            return self._nearest(weight, line, line.solver(chosen), m)

        return project

    def _line(self, weight: Tensor, importance: Tensor | None) -> Line:
        x = weight.detach().double().flatten().cpu().numpy()
        h = None if importance is None else importance.detach().double().flatten().cpu().numpy()
        return Line(x, h, self.zero == "free", self.exact_below)

    def _nearest(self, weight: Tensor, line: Line, solver: KMeans, m: int) -> Tensor:
        """Each weight its nearest of m centres, rounded to the file's format and the weight's dtype first."""
        centres = self._round(solver.centres(m))
        if self.zero == "free":
            centres = np.append(centres, 0.0)
        centres = np.unique(torch.from_numpy(centres).to(weight.dtype).double().numpy()) + 0.0
        return torch.from_numpy(line.assign(centres)).view(weight.shape).to(weight)

    @property
    def _smallest(self) -> int:
        """The smallest level that may be given."""
        return 1 if self.min_entries is None else self.min_entries

    @property
    def _rounds(self) -> bool:
        return self.value_format == "float16" or self.mantissa_bits is not None

    def _round(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """To what the file stores: the mantissa bits, then the format."""
        if self.mantissa_bits is not None:
            mantissa, exponent = np.frexp(values)
            values = np.ldexp(np.rint(np.ldexp(mantissa, self.mantissa_bits + 1)), exponent - self.mantissa_bits - 1)
        if self.value_format == "float16":
            values = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float64)
        return values


def _gap(weight: Tensor, values: Tensor) -> float:
    """Mean distance of a nonzero weight's value to the nearest other one of `values` (ascending)."""
    kept = weight[weight != 0]
    if values.numel() < 2 or not kept.numel():
        return math.inf
    steps = values.double().diff()
    nearest_other = torch.minimum(torch.cat([steps[:1], steps]), torch.cat([steps, steps[-1:]]))
    return float(nearest_other[torch.searchsorted(values, kept.contiguous())].mean())
