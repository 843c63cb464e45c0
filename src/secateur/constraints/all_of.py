"""All of: several sets on one site at once (prune in two ways, prune and quantise jointly)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._frames import joint_frame
from secateur.constraints._pieces import Free, Support
from secateur.contracts import Constraint, Piece
from secateur.curves import Curve, DistanceCurve, Joint, Memo, Product, Sketch, thinned
from secateur.errors import ConstraintError, UsageError
from secateur.types import VALUE_ENTROPY, Level, Packing, Site, Stage, log2_choose

Floats = NDArray[np.float64]
_ROUNDS = 20  # alternations at most; they stop by themselves after 3-6
_SKETCH_LEVELS, _SKETCH_VALUES, _SKETCH_ENTRIES = 8, 1000, 16
_BESIDE_OTHERS = {"channels": "oc", "readers": "o_khkw_c"}  # sets of coupled channels read each weight by itself then

_OF_THEIR_OWN = ("head", "unit")  # views that no weight has alone


@dataclass(frozen=True)
class AllOf(Constraint):
    """The intersection of sets: supports (topk, nm, rows, blocks), any number, and at most one set of values.

    Zeros are free: outside the support a weight costs no code. The level is a tuple with a level for each part; None
    in a place leaves that part dense. `parts` are put in the order of their stages, a set of values with its free zero.

    Reference: Ye et al., arXiv:1811.01907 (joint pruning and clustering); Ren et al., ADMM-NN, ASPLOS 2019,
    arXiv:1812.11677. The gain rule is card P20.
    """

    parts: tuple[Constraint, ...]
    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Ren et al., ADMM-NN, ASPLOS 2019, arXiv:1812.11677; Ye et al., arXiv:1811.01907"

    def __post_init__(self) -> None:
        parts = sorted((p for given in self.parts for p, _ in given.split(None)), key=lambda p: p.stage)
        parts = [p.with_free_zero() if p.stage == Stage.VALUES else p for p in parts]
        self._check(parts)
        views = {p.view for p in parts if p.stage == Stage.SUPPORT}
        if len(views) > 1:  # the columns of `oc` may come in any order
            views = {_BESIDE_OTHERS.get(view, view) for view in views}
        view = next(iter(views - {"oc"}), "oc")
        keys = tuple(dict.fromkeys(key for p in parts for key in p.level_keys))
        settled = {"parts": tuple(parts), "view": view, "stage": parts[-1].stage, "level_keys": keys}
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def _check(parts: Sequence[Constraint]) -> None:
        """Raise UsageError with the reason where no joint set can be made of `parts`, which are in order."""
        got = ", ".join(f"{p.name} ({p.stage.name.lower()})" for p in parts) or "nothing"
        at = {stage: [p for p in parts if p.stage == stage] for stage in Stage}
        own_order = sorted({_BESIDE_OTHERS.get(p.view, p.view) for p in at[Stage.SUPPORT]} - {"oc"})
        own = next((p for p in parts if p.view in _OF_THEIR_OWN), None)
        why = None
        if own is not None and len(parts) > 1:
            why = (
                f"{own.name} sees several weights at once, row beside row; write it as an entry of its own and the "
                "others as another, they go together"
            )
        elif at[Stage.FORM]:
            why = f"{at[Stage.FORM][0].name} stores other tensors, of which the other sets say nothing; name it alone"
        elif len(at[Stage.VALUES]) > 1:
            why = "a weight takes values from one set; name one of them"
        elif chains := [p.name for p in parts if p.chain]:
            why = f"{chains[0]} marks levels of a weight, which the other sets would have to follow; name it alone"
        elif len(parts) < 2:
            why = "two sets or more are needed, such as topk and codebook"
        elif own_order[1:]:
            why = f"the supports read the columns in different orders ({', '.join(own_order)})"
        elif at[Stage.VALUES] and not at[Stage.VALUES][0].keeps_zeros:
            why = f"{at[Stage.VALUES][0].name} has no zero, which dropped weights need"
        if why:
            raise UsageError(f"all_of: got {got}; {why}")

    @cached_property
    def _support(self) -> Constraint:
        """The supports as one set."""
        supports = tuple(p for p in self.parts if p.stage == Stage.SUPPORT)
        return supports[0] if len(supports) == 1 else AllOf(supports)

    @cached_property
    def _values(self) -> Constraint | None:
        return self.parts[-1] if self.parts[-1].stage == Stage.VALUES else None

    @property
    def may_stay_dense(self) -> bool:
        return all(p.may_stay_dense for p in self.parts)

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return Product(*(p.levels(shape) for p in self.parts))

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        """The keys of all parts together, {sparsity: 0.9, bits: 4}; or parts by name, {nm: {n: 2}, rows: {keep: 9}}.

        A key that two parts understand must be given by name.
        """
        named = {k: v for k, v in given.items() if isinstance(v, Mapping)}
        plain = {k: v for k, v in given.items() if k not in named}
        shared = Counter(key for p in self.parts if p.name not in named for key in p.level_keys)
        for key in plain:
            if key not in shared:
                raise ConstraintError(f"{self.name}: level key {key!r} is unknown; known: {', '.join(shared)}")
            if shared[key] > 1:
                both = [p.name for p in self.parts if key in p.level_keys]
                raise ConstraintError(
                    f"{self.name}: level key {key!r} is understood by {' and by '.join(both)}; say whose it is, as in "
                    f"level: {{{both[0]}: {{{key}: {plain[key]}}}, ...}}"
                )
        if unknown := named.keys() - {p.name for p in self.parts}:
            raise ConstraintError(f"{self.name}: level names {min(unknown)!r}, which is none of the parts")
        return tuple(self._own(part, named, plain, shape) for part in self.parts)

    def _own(
        self, part: Constraint, named: Mapping[str, Any], plain: Mapping[str, Any], shape: tuple[int, int]
    ) -> Level:
        own = named.get(part.name, {k: v for k, v in plain.items() if k in part.level_keys})
        if not own:
            raise ConstraintError(
                f"{self.name}: level got {', '.join([*plain, *named]) or 'nothing'}; one of "
                f"{', '.join(part.level_keys)} is missing. To fix one part only, give its value by options (such as "
                "min_bits = max_bits) and no level"
            )
        return part.parse_level(own, shape)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Choose supports and values together.

        A member near `weight` in sum h (w - z)^2. Heuristic. Supports alone: one after the other, in the best order.
        With values: given those, the support with the largest gains h (w^2 - (w - value)^2) is optimal; given the
        support, the values are; the two alternate to a local optimum, from prune-then-quantise and from
        quantise-then-prune. The better end is taken, so the answer is never worse than any sequence of the parts.
        Zeros of `weight` stay zero.

        Args:
            weight: float [rows, cols]; not changed.
            level: a level for each part, or None.
            importance: h >= 0 of the same shape, or None for ones.
        Returns:
            New tensor, same shape, dtype and device.
        Raises:
            ConstraintError: as the parts do.
        """
        lv.checked("all_of", weight, importance)
        for part, at in self.split(level):
            if part.stage == Stage.SUPPORT and at is not None:
                lv.on_menu(part.name, weight.shape, at, part.levels((weight.shape[0], weight.shape[1])))
        if self.contains(weight, level):
            return weight.clone() if level is None else weight + 0.0
        support, values = self._support, self._values
        where, what = self._pair(level)
        if values is None:
            return self._one_by_one(weight, level, importance)
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

    def _one_by_one(self, weight: Tensor, level: Level, h: Tensor | None) -> Tensor:
        """The supports in every order; the nearest end that is a member of all."""
        best, found = math.inf, None
        for order in permutations([(p, at) for p, at in self.split(level) if at is not None]):
            z = weight
            for part, at in order:
                z = part.project(z, at, h)
            far = float(lv.gains(weight.double() - z.double(), h).sum())
            if far < best and self.contains(z, level):
                best, found = far, z
        if found is None:
            raise ConstraintError(
                f"{self.name} {list(weight.shape)}: no order of projections at level {level} ends in all sets; sets of "
                "supports must take any part of a support that they take"
            )
        return found

    def contains(self, weight: Tensor, level: Level) -> bool:
        return all(p.contains(weight, part) for p, part in self.split(level))

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The intersection: the value set's piece through `weight` keeps zeros at zero, so it lies in the support."""
        where, what = self._pair(level)
        if not self.contains(weight, level):
            raise ConstraintError(f"{self.name} {list(weight.shape)}: freeze needs a member of {level}; project first")
        if what is not None and self._values is not None:
            return self._values.freeze(weight, what)
        return Free() if where is None else Support(self.mask(weight, level))

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        masks = [p.mask(weight, at) for p, at in self.split(level) if p.stage == Stage.SUPPORT and at is not None]
        return torch.stack(masks).all(0) if masks else torch.ones_like(weight, dtype=torch.bool)

    def tightest(self, weight: Tensor, level: Level) -> Level:
        return _tuple_of(p.tightest(weight, at) for p, at in self.split(level))

    def before(self, stage: Stage, level: Level) -> tuple[Constraint, Level] | None:
        kept = [(p, at) for p, at in self.split(level) if p.stage < stage]
        if len(kept) < 2:
            return kept[0] if kept else None
        return AllOf(tuple(p for p, _ in kept)), _tuple_of(at for _, at in kept)

    def fitted(self, matrices: Iterable[Tensor] | None) -> AllOf:
        shown = None if matrices is None else list(matrices)
        return AllOf(tuple(p.fitted(shown) for p in self.parts))

    def unfit(self, site: Site) -> str | None:
        """What the first part says that cannot act there."""
        return next((why for part in self.parts if (why := part.unfit(site))), None)

    def on(self, site: Site) -> AllOf:
        return AllOf(tuple(p.on(site) for p in self.parts))

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Where every part survives it."""
        cut = [p.after_cut(shape, kept_rows, kept_cols, at) for p, at in self.split(level)]
        found = [c for c in cut if c is not None]
        if len(found) < len(cut):
            return None
        return AllOf(tuple(p for p, _ in found)), _tuple_of(at for _, at in found)

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """Positions as the supports say (of several: `joint_frame`); log2 of the number of nonzero values for each kept
        weight.
        """
        where, what = self._pair(level)
        if self._values is None:
            return joint_frame([(p, at, _packed(p, shape, at)) for p, at in self.split(level)], shape)
        frame = _packed(self._support, shape, where)
        if what is None:
            return frame
        value = _packed(self._values, shape, what)
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
        pattern = frame.pattern
        return Packing(
            frame.n, frame.nnz, bits, entries, value.entry_bits, extra, expected_bits=expected, pattern=pattern
        )

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Curve:
        """Exact by projecting; the estimate adds the distances of supports and values, these from a sample of the kept.

        Of supports alone it lies between some projected levels of one part, as that part's own distance does.
        """
        lv.checked("all_of", weight, importance)
        exact = Memo(DistanceCurve(self.project, weight, importance))
        if self._values is None:
            return Joint(exact, self._between(exact, weight, importance))
        return Joint(exact, self._sketch(self._values, weight, importance))

    def split(self, level: Level) -> tuple[tuple[Constraint, Level], ...]:
        if level is None:
            return tuple((p, None) for p in self.parts)
        if not isinstance(level, tuple) or len(level) != len(self.parts):
            raise ConstraintError(f"{self.name}: level {level!r}; a level for each of the parts is needed")
        return tuple(zip(self.parts, level, strict=True))

    def _pair(self, level: Level) -> tuple[Level, Level]:
        """The level of `_support` and that of `_values`."""
        at = [part_level for _, part_level in self.split(level)]
        what = at.pop() if self._values is not None else None
        return (at[0] if len(at) == 1 else _tuple_of(at)), what

    @property
    def keeps_zeros(self) -> bool:
        return all(p.keeps_zeros for p in self.parts)

    @property
    def rounding(self) -> float:
        return max(p.rounding for p in self.parts)

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        """Those of the parts."""
        return tuple(dict.fromkeys(shape for p in self.parts for shape in p.trials))

    def grid(self, weight: Tensor) -> Tensor | None:
        """That of the value set; zeros are the code 0."""
        return None if self._values is None else self._values.grid(weight)

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """Each part goes its own way."""
        return _tuple_of(p.at_tightness(shape, part, tightness) for p, part in self.split(level))

    def _between(self, exact: Curve, weight: Tensor, h: Tensor | None) -> Sketch:
        """For levels that differ in one place: between `_SKETCH_LEVELS` projected ones there."""
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        own = [p.distance(weight, h) for p in self.parts]

        @cache
        def knots(i: int, level: tuple[Level, ...]) -> tuple[Floats, Floats]:
            menu = thinned(self.parts[i].levels(shape), _SKETCH_LEVELS)
            points = sorted((own[i](at), exact((*level[:i], at, *level[i + 1 :]))) for at in menu)
            return np.array([x for x, _ in points]), np.array([y for _, y in points])

        def many(levels: Sequence[tuple[Level, ...]]) -> list[float]:
            i = next((i for i in range(len(own)) if len({at[i] for at in levels}) > 1), 0)
            rest = (*levels[0][:i], None, *levels[0][i + 1 :])
            return list(np.interp([own[i](at[i]) for at in levels], *knots(i, rest)))

        return Sketch(many)

    def _sketch(self, values: Constraint, weight: Tensor, h: Tensor | None) -> Sketch:
        support = self._support
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        curve = support.distance(weight, h)
        dropped = curve.estimate if isinstance(curve, Joint) else curve

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

        def many(levels: Sequence[tuple[Level, ...]]) -> list[float]:
            pairs = [self._pair(level) for level in levels]
            wheres, what = [where for where, _ in pairs], pairs[0][1]
            gone = [dropped(where) for where in wheres]
            if what is None:
                return gone
            nnz = [weight.numel() if where is None else _packed(support, shape, where).nnz for where in wheres]
            return list(gone + rounded(np.array(nnz, np.float64), what))

        return Sketch(many)


def _tuple_of(levels: Iterable[Level]) -> Level:
    """The level of a joint set; None where every part is dense."""
    found = tuple(levels)
    return None if all(level is None for level in found) else found


def _packed(part: Constraint, shape: tuple[int, int], level: Level) -> Packing:
    """Supports and values keep the form: one tensor."""
    found = part.packing(shape, level)
    assert isinstance(found, Packing)
    return found


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
