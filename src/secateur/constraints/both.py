"""Both: a set of supports and a set of values on one site (prune and quantise jointly)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.contracts import Constraint, DistanceCurve, Piece
from secateur.curves import Curve, Joint, Memo, Product, Sketch, thinned
from secateur.errors import ConstraintError, UsageError
from secateur.types import VALUE_ENTROPY, Level, Packing, log2_choose

Floats = NDArray[np.float64]
_ROUNDS = 20  # alternations at most; they stop by themselves after 3-6
_SKETCH_LEVELS, _SKETCH_VALUES, _SKETCH_ENTRIES = 8, 1000, 16


@dataclass(frozen=True)
class Both(Constraint):
    """The intersection of one support set (topk, nm, rows) and one value set (uniform, codebook).

    Zeros are free: outside the support a weight costs no code. The level is the pair (support level, value level);
    None in a place leaves that part dense. `parts` is put into that order, the value set with its free zero.

    Reference: Ye et al., arXiv:1811.01907 (joint pruning and clustering); Ren et al., ADMM-NN, ASPLOS 2019,
    arXiv:1812.11677. The gain rule is card P20.
    """

    parts: tuple[Constraint, ...]
    exact: ClassVar[bool] = False
    kind: ClassVar[str] = "joint"
    reference: ClassVar[str] = "Ren et al., ADMM-NN, ASPLOS 2019, arXiv:1812.11677; Ye et al., arXiv:1811.01907"

    def __post_init__(self) -> None:
        by_kind = {p.kind: p for p in self.parts}
        if len(self.parts) != 2 or by_kind.keys() != {"support", "values"}:
            got = ", ".join(f"{type(p).__name__} ({p.kind})" for p in self.parts) or "nothing"
            raise UsageError(
                f"both: got {got}; one support set (such as topk, nm, rows) and one value set (such as uniform, "
                "codebook) are needed"
            )
        object.__setattr__(self, "parts", (by_kind["support"], by_kind["values"].with_free_zero()))
        object.__setattr__(self, "view", by_kind["support"].view)
        object.__setattr__(self, "level_keys", (*by_kind["support"].level_keys, *by_kind["values"].level_keys))

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return Product(self.parts[0].levels(shape), self.parts[1].levels(shape))

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        """The keys of both parts together: {sparsity: 0.9, bits: 4}."""
        pair = []
        for part in self.parts:
            own = {k: v for k, v in given.items() if k in part.level_keys}
            if not own:
                raise ConstraintError(
                    f"both: level got {', '.join(given) or 'nothing'}; one of {', '.join(part.level_keys)} is missing. "
                    f"To fix one part only, give its value by options (such as min_bits = max_bits) and no level"
                )
            pair.append(part.parse_level(own, shape))
        unknown = [k for k in given if k not in self.level_keys]
        if unknown:
            raise ConstraintError(f"both: level key {unknown[0]!r} is unknown; known: {', '.join(self.level_keys)}")
        return tuple(pair)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Choose support and values together.

        A member near `weight` in sum h (w - z)^2. Heuristic: given the values, the support with the largest gains
        h (w^2 - (w - value)^2) is optimal; given the support, the values are; the two alternate to a local optimum,
        from prune-then-quantise and from quantise-then-prune. The better end is taken, so the answer is never
        worse than either sequence. Zeros of `weight` stay zero.

        Args:
            weight: float [rows, cols]; not changed.
            level: (support level, value level) or None.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device.
        Raises:
            ConstraintError: as the parts do.
        """
        lv.checked("both", weight, importance)
        support, values = self.parts
        where, what = _pair(level)
        if self.contains(weight, level):
            return weight.clone() if level is None else weight + 0.0
        if where is None or what is None:
            return support.project(values.project(weight, what, importance), where, importance)
        turns = _Turns(support, where, values.masked(weight, what, importance), weight, importance)
        kept = support.project(weight, where, importance) != 0
        rounded = turns.rounded(kept)
        in_turn = _on(kept, rounded)
        ends = [(turns.distance(in_turn), in_turn)]
        ends.append(turns.descended(turns.regained(rounded)))
        ends.append(turns.descended(turns.regained(turns.rounded(torch.ones_like(kept)))))
        return min(ends, key=lambda end: end[0])[1]

    def contains(self, weight: Tensor, level: Level) -> bool:
        return all(p.contains(weight, part) for p, part in zip(self.parts, _pair(level), strict=True))

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The intersection: the value set's piece through `weight` keeps zeros at zero, so it lies in the support."""
        where, what = _pair(level)
        if not self.contains(weight, level):
            raise ConstraintError(f"both {list(weight.shape)}: freeze needs a member of level {level}; project first")
        support, values = self.parts
        return support.freeze(weight, where) if what is None else values.freeze(weight, what)

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """Positions as the support set says; log2 of the number of nonzero values for each kept weight."""
        where, what = _pair(level)
        frame = self.parts[0].packing(shape, where)
        if what is None:
            return frame
        value = self.parts[1].packing(shape, what)
        n_nonzero = max(round(2**value.bits) - 1, 1)  # the value set counts its zero
        entries = min(value.n_values, max(frame.nnz, 1))
        if frame.structure_bits is not None:  # whole rows: a zero among the kept weights needs a code
            bits, extra, coded = math.log2(n_nonzero + 1), frame.structure_bits, frame.nnz
        else:
            bits = math.log2(n_nonzero)
            # A member may hold fewer nonzeros, and near n fewer can cost more: promise the worst of them.
            coded = min(frame.nnz, round(frame.n * n_nonzero / (1 + n_nonzero)))
            extra = log2_choose(frame.n, coded) + (coded - frame.nnz) * bits
        expected = bits * (1 - (1 - VALUE_ENTROPY) * coded / max(frame.nnz, 1))  # of the coded ones alone
        return Packing(frame.n, frame.nnz, bits, entries, value.entry_bits, extra, expected_bits=expected)

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Exact by projecting; the estimate adds the two parts' distances, the second from a sample of the kept."""
        lv.checked("both", weight, importance)
        return Joint(Memo(DistanceCurve(self, weight, importance)), self._sketch(weight, importance))

    def split(self, level: Level) -> tuple[tuple[Constraint, Level], ...]:
        return tuple(zip(self.parts, _pair(level), strict=True))

    def grid(self, weight: Tensor) -> Tensor | None:
        """That of the value set; zeros are the code 0."""
        return self.parts[1].grid(weight)

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """Each part goes its own way."""
        pair = tuple(p.at_tightness(shape, part, tightness) for p, part in self.split(level))
        return None if all(part is None for part in pair) else pair

    def _sketch(self, weight: Tensor, h: Tensor | None) -> Sketch:
        support, values = self.parts
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        dropped = support.distance(weight, h)

        @cache
        def rounding(where: Level) -> tuple[int, float, Curve]:
            """Number kept, scale and value curve of a sample of the weights that `where` keeps."""
            kept = (support.project(weight, where, h) != 0).flatten()
            x, order = weight.flatten()[kept].sort()
            pick = torch.linspace(0, max(x.numel() - 1, 0), min(x.numel(), _SKETCH_VALUES)).round().long()
            g = None if h is None else h.flatten()[kept][order][pick][None]
            return x.numel(), x.numel() / max(pick.numel(), 1), values.distance(x[pick][None], g)

        def per_kept(where: Level, what: Level) -> tuple[int, float]:
            n, scale, curve = rounding(where)
            return (n, scale * curve(what) / n) if n else (0, 0.0)

        grid = thinned(support.levels(shape), _SKETCH_LEVELS)

        @cache
        def table(what: Level) -> tuple[Floats, Floats]:
            points = sorted(per_kept(level, what) for level in grid)
            return np.log1p([n for n, _ in points]), np.array([e for _, e in points])

        def rounded(nnz: Floats, what: Level) -> Floats:
            # Codebooks of many entries: the error falls with their square (Panter & Dite 1951), no need to solve.
            few = min(what, _SKETCH_ENTRIES) if isinstance(what, int) else what
            fall = (few / what) ** 2 if isinstance(what, int) and isinstance(few, int) else 1.0
            return nnz * fall * np.interp(np.log1p(nnz), *table(few))

        def many(wheres: Sequence[Level], what: Level) -> list[float]:
            gone = [dropped(where) for where in wheres]
            if what is None:
                return gone
            nnz = [weight.numel() if where is None else support.packing(shape, where).nnz for where in wheres]
            return list(gone + rounded(np.array(nnz, np.float64), what))

        return Sketch(many)


def _pair(level: Level) -> tuple[Level, Level]:
    if level is None:
        return None, None
    if not isinstance(level, tuple) or len(level) != 2:
        raise ConstraintError(f"both: level {level!r}; a pair (support level, value level) is needed")
    return level


class _Turns:
    """Support and values of one weight, chosen by turns: each step is optimal given the other part.

    `rounded` is the projection to the values of the kept weights. A step depends on the support alone, so one that was
    met before leads where it led then.
    """

    def __init__(
        self, support: Constraint, where: Level, rounded: Callable[[Tensor], Tensor], weight: Tensor, h: Tensor | None
    ) -> None:
        self._support, self._where, self.rounded = support, where, rounded
        self._w, self._h = weight.detach().double(), None if h is None else h.detach().double()
        self._twice = 2 * self._w
        self._met: set[bytes] = set()

    def regained(self, rounded: Tensor) -> Tensor:
        """The best support when every weight may take its value in `rounded` or 0; positive gains only."""
        r = rounded.double()
        gain = (self._twice - r).mul_(r)
        kept = self._support.select(gain if self._h is None else gain.mul_(self._h), self._where)
        return _on(kept, rounded)

    def descended(self, z: Tensor) -> tuple[float, Tensor]:
        """The end of the alternation from `z`, and its distance."""
        best = self.distance(z)
        for _ in range(_ROUNDS):
            kept = z != 0
            key = np.packbits(kept.cpu().numpy()).tobytes()
            if key in self._met:
                break
            self._met.add(key)
            trial = self.regained(self.rounded(kept))
            now = self.distance(trial)
            if not now < best:
                break
            z, best = trial, now
        return best, z

    def distance(self, z: Tensor) -> float:
        square = (self._w - z.double()).square_()
        return float((square if self._h is None else square.mul_(self._h)).sum())


def _on(kept: Tensor, z: Tensor) -> Tensor:
    """`z` where kept, 0 elsewhere; never -0.0. A product takes a tenth of the time of `torch.where`."""
    return (z * kept).add_(0.0)
