"""Nested: a chain of supports of one set, each inside the one before; which of them acts is chosen at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, overload

from torch import Tensor

from secateur.contracts import Constraint, Piece
from secateur.errors import ConstraintError, UsageError
from secateur.types import Bands, Level, Packing, Site, Stage

MOST = 16  # levels of a chain: what a file may hold


@dataclass(frozen=True)
class Nested(Constraint):
    """{Z : Z in `of` at the loosest level}, with levels inside that one; all share the weights of the loosest.

    The level is a tuple of levels of `of`, from loose to tight. As a set of matrices only the first one counts: what is
    stored of a weight is its loosest member. The supports of the others lie inside it and are chosen and trained by
    `run/chain.py`; where a recipe names no level, under `shares` of its budget.

    Attributes:
        of: a set of supports that nest.
        shares: of every limit of the budget, what each tighter level may take; falling numbers between 0 and 1.

    Reference: ICTAI 2022 (compact multi-level sparse networks, dynamic rerouting); Lu et al., AST, NeurIPS 2022.
    """

    of: Constraint
    shares: tuple[float, ...] = (0.5,)
    nests: ClassVar[bool] = True
    reference: ClassVar[str] = "Compact multi-level sparse networks, ICTAI 2022; AST, NeurIPS 2022 (training)"

    def __post_init__(self) -> None:
        numbers = isinstance(self.shares, tuple) and all(type(s) in (int, float) for s in self.shares)
        if not (numbers and self.shares and all(a > b for a, b in pairwise((1, *self.shares, 0)))):
            raise UsageError(f"nested: shares={self.shares!r}; falling numbers between 1 and 0 are needed: [0.5, 0.25]")
        if len(self.shares) >= MOST:
            raise UsageError(f"nested: {len(self.shares) + 1} levels; a file holds at most {MOST}")
        of = self.of
        if not isinstance(of, Constraint) or isinstance(of, Nested) or of.stage != Stage.SUPPORT or not of.nests:
            name = of.name if isinstance(of, Constraint) else repr(of)
            raise UsageError(f"nested: of {name}; a set whose supports nest is needed, such as topk, blocks or rows")
        for field in ("view", "row_order", "level_keys", "exact", "unit"):
            object.__setattr__(self, field, getattr(of, field))

    @property
    def chain(self) -> tuple[Constraint, tuple[float, ...]]:
        return self.of, self.shares

    @property
    def n(self) -> int:
        """Levels, the loosest one counted."""
        return 1 + len(self.shares)

    def all_at(self, level: Level) -> Level:
        """The chain whose levels are all this one of `of`; None: dense."""
        return None if level is None else (level,) * self.n

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        """Chains whose levels are all the same: the tighter ones are looked for inside."""
        return _Alike(self.of.levels(shape), self.n)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        """`{sparsity: [0.6, 0.8, 0.9]}`: a value for every level, from loose to tight."""
        if len(given) != 1 or not isinstance(values := next(iter(given.values())), list) or len(values) != self.n:
            raise ConstraintError(
                f"{self.name}: level {dict(given)!r}; one of {', '.join(self.level_keys)} with a list of {self.n} "
                "values is needed, from loose to tight"
            )
        key, menu = next(iter(given)), self.of.levels(shape)
        found = [self.of.parse_level({key: value}, shape) for value in values]
        if any(menu.index(b) > menu.index(a) for a, b in pairwise(found)):
            raise ConstraintError(
                f"{self.name}: {key} {values}; each level must be as tight as the one before, or more"
            )
        return tuple(found)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Nearest member of `of` at the loosest level."""
        return self.of.project(weight, self._loosest(level), importance)

    def select(self, gain: Tensor, level: Level) -> Tensor:
        return self.of.select(gain, self._loosest(level))

    def contains(self, weight: Tensor, level: Level) -> bool:
        return self.of.contains(weight, self._loosest(level))

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        return self.of.freeze(weight, self._loosest(level))

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        return self.of.mask(weight, self._loosest(level))

    def packing(self, shape: tuple[int, int], level: Level) -> Packing | tuple[Packing, ...]:
        """Of the loosest level; a file marks the others besides (docs/format.md, 8)."""
        return self.of.packing(shape, self._loosest(level))

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Callable[[Level], float]:
        curve = self.of.distance(weight, importance)
        return lambda level: curve(self._loosest(level))

    def tightest(self, weight: Tensor, level: Level) -> Level:
        """Levels that are the loosest one tighten with it."""
        loosest, *rest = (None,) * self.n if level is None else self._chain(level)
        now = self.of.tightest(weight, loosest)
        return None if now is None else (now, *(now if at == loosest else at for at in rest))

    def unfit(self, site: Site) -> str | None:
        return self.of.unfit(site)

    def on(self, site: Site) -> Nested:
        return replace(self, of=self.of.on(site))

    def fitted(self, matrices: Iterable[Tensor] | None) -> Nested:
        return replace(self, of=self.of.fitted(matrices))

    def bands(self, shape: tuple[int, int]) -> Bands | None:
        return self.of.bands(shape)

    def within(self, unit: str, shape: tuple[int, int], level: Level) -> float:
        return self.of.within(unit, shape, self._loosest(level))

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """Where `of` survives it."""
        chain = (None,) if level is None else self._chain(level)
        cut = [self.of.after_cut(shape, kept_rows, kept_cols, at) for at in chain]
        found = [c for c in cut if c is not None]
        if len(found) < len(cut):
            return None
        return replace(self, of=found[0][0]), None if level is None else tuple(at for _, at in found)

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """The loosest level on its way; the chain itself at the end."""
        if tightness >= 1.0 or level is None:
            return level
        return self.all_at(self.of.at_tightness(shape, self._loosest(level), tightness))

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        """Those of `of`."""
        return self.of.trials

    def _chain(self, level: Level) -> tuple[Level, ...]:
        if not isinstance(level, tuple) or len(level) != self.n:
            raise ConstraintError(f"{self.name}: level {level!r}; a level for each of the {self.n} is needed")
        return level

    def _loosest(self, level: Level) -> Level:
        return None if level is None else self._chain(level)[0]


class _Alike(Sequence[Level]):
    """The menu (a, a, ...) for every a of a menu, lazily."""

    def __init__(self, menu: Sequence[Level], n: int) -> None:
        self.menu, self.n = menu, n

    def __len__(self) -> int:
        return len(self.menu)

    @overload
    def __getitem__(self, i: int) -> Level: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Level]: ...
    def __getitem__(self, i: int | slice) -> Level | Sequence[Level]:
        return _Alike(self.menu[i], self.n) if isinstance(i, slice) else (self.menu[i],) * self.n

    def __contains__(self, level: object) -> bool:
        return isinstance(level, tuple) and len(level) == self.n and len(set(level)) == 1 and level[0] in self.menu
