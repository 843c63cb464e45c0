"""A study's grid: its axes, the cells that they make of its parts, and the values put in where a part says `$axis`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from secateur.errors import UsageError
from secateur.limits import quoted

Json = dict[str, Any]
Axes = Mapping[str, Mapping[str, Any]]  # axis -> name of a value -> the value
_PLACE = re.compile(r"\$([A-Za-z_]\w*)(?:\.(\w+))?")
_SAFE = re.compile(r"[A-Za-z0-9._+-]{1,40}")  # a value's name is part of a folder's
_MOST = 1000


@dataclass(frozen=True)
class Cell:
    """One training of a study: a part at one point of the axes that it uses.

    Attributes:
        name: `part` or `part,axis=value,...` in the grid's order.
        plan: the part with every `$axis` and `$axis.key` replaced.
        start: name of the cell whose net it starts from; None for a net trained from scratch or a recorded one.
        teacher: name of the cell that its training listens to; None: none, or the start itself.
    """

    name: str
    part: str
    plan: Json
    start: str | None
    teacher: str | None = None

    @property
    def needs(self) -> list[str]:
        """The cells that must be there before it."""
        return [name for name in (self.start, self.teacher) if name is not None]


def axes(grid: Mapping[str, Any], subject: str) -> dict[str, dict[str, Any]]:
    """The axes as name -> value. A list names its values by themselves, a mapping by its keys."""
    found: dict[str, dict[str, Any]] = {}
    for axis, given in grid.items():
        values = given if isinstance(given, Mapping) else {v: v for v in given} if _is_plain(given) else {}
        named = {str(k): v for k, v in values.items()}
        if not named or len(named) != len(given) or not all(map(_SAFE.fullmatch, named)):
            raise UsageError(
                f"{subject}: grid.{axis}: {quoted(given)}; a list of different values, or a mapping of name to value, "
                "is needed; names of letters, digits and . _ + -"
            )
        found[str(axis)] = named
    return found


def _is_plain(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(v, str | int | float) for v in given)


def filled(parts: Mapping[str, Json], values: Mapping[str, Any]) -> dict[str, Json]:
    """The parts with each `$name` of `values` replaced; other places stay.

    >>> filled({"net": {"epochs": "$n", "title": "$n of $width"}}, {"n": 8})
    {'net': {'epochs': 8, 'title': '8 of $width'}}
    """

    def put(given: Any) -> Any:
        if isinstance(given, Mapping):
            return {k: put(v) for k, v in given.items()}
        if isinstance(given, list):
            return [put(v) for v in given]
        if not isinstance(given, str):
            return given
        whole = _PLACE.fullmatch(given)
        if whole and whole[2] is None and whole[1] in values:
            return values[whole[1]]
        return _PLACE.sub(lambda m: str(values[m[1]]) if m[2] is None and m[1] in values else m[0], given)

    return {name: put(plan) for name, plan in parts.items()}


def expand(parts: Mapping[str, Json], grid: Axes, subject: str) -> dict[str, Cell]:
    """All cells by name, each after the one that it starts from.

    A part is repeated along the axes that it mentions and along those of the part that it starts from.

    Raises:
        UsageError: an axis or key that is not there, a start that is not an earlier part, too many cells.
    """
    used: dict[str, tuple[str, ...]] = {}
    cells: dict[str, Cell] = {}
    for part, plan in parts.items():
        start = plan.get("from")
        own = {a for a, _ in _places(plan)} | set(used.get(str(start), ()))
        if unknown := own - set(grid):
            known = ", ".join(grid) or "the study has no grid"
            raise UsageError(f"{subject}: parts.{part}: ${sorted(unknown)[0]} is no axis; known: {known}")
        used[part] = tuple(a for a in grid if a in own)
        for values in product(*(grid[a] for a in used[part])):
            at = dict(zip(used[part], values, strict=True))
            filled = _put(plan, {a: (v, grid[a][v]) for a, v in at.items()}, f"{subject}: parts.{part}")
            cell = Cell(_name(part, used[part], at), part, filled, None)
            if start is not None:
                before = [
                    _earlier(key, cell.name, filled[key], used, at, cells, subject)
                    for key in ("from", "teacher")
                    if key in filled
                ]
                cell = Cell(cell.name, part, filled, *before)
            cells[cell.name] = cell
            if len(cells) > _MOST:
                raise UsageError(f"{subject}: more than {_MOST} cells; use fewer or shorter axes")
    return cells


def _earlier(
    key: str,
    name: str,
    wanted: Any,
    used: Mapping[str, tuple[str, ...]],
    at: Mapping[str, str],
    cells: Mapping[str, Cell],
    subject: str,
) -> str:
    """The cell that `wanted`, a part's name, means at this point."""
    found = _name(str(wanted), used.get(str(wanted), ()), at)
    if found not in cells or cells[found].name == name:
        raise UsageError(
            f"{subject}: {name}: {key} {quoted(wanted)} is no earlier part at this point; earlier: {', '.join(used)}"
        )
    return found


def _name(part: str, used: tuple[str, ...], at: Mapping[str, str]) -> str:
    return ",".join([part, *(f"{a}={at[a]}" for a in used if a in at)])


def _places(value: Any) -> Iterator[tuple[str, str | None]]:
    """Every `$axis` (axis, None) and `$axis.key` (axis, key) in a nest."""
    if isinstance(value, Mapping):
        for v in value.values():
            yield from _places(v)
    elif isinstance(value, list):
        for v in value:
            yield from _places(v)
    elif isinstance(value, str):
        yield from ((m[1], m[2]) for m in _PLACE.finditer(value))


def _put(value: Any, at: Mapping[str, tuple[str, Any]], subject: str) -> Any:
    """A nest with the values put in: a string that is nothing but a place becomes the value itself."""
    if isinstance(value, Mapping):
        return {k: _put(v, at, subject) for k, v in value.items()}
    if isinstance(value, list):
        return [_put(v, at, subject) for v in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    return _value(whole, at, subject) if whole else _PLACE.sub(lambda m: str(_value(m, at, subject)), value)


def _value(match: re.Match[str], at: Mapping[str, tuple[str, Any]], subject: str) -> Any:
    name, value = at[match[1]]
    if match[2] is None:
        return name if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or match[2] not in value:
        known = ", ".join(map(str, value)) if isinstance(value, Mapping) else "none"
        raise UsageError(f"{subject}: {match[0]}: {match[1]}={name} has no key {match[2]!r}; known: {known}")
    return value[match[2]]
