"""Methods of the rooms from what a recipe says of them: a name and its fields, checked against what they declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from secateur import catalog
from secateur.constraints import together
from secateur.contracts import STATISTICS, Constraint, Solver
from secateur.errors import ConstraintError, UsageError
from secateur.limits import near, quoted

T = TypeVar("T")


def build(room: str, settings: Mapping[str, Any], subject: str, kind: type[T], also: Sequence[str] = ()) -> T:
    """An instance of a room's method from `{name: ..., field: ...}`; unknown fields name the nearest known one.

    `also` are keys that somebody else has taken out of `settings`, for that message.
    """
    options = dict(settings)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"{subject}: needs `name`, one of {', '.join(catalog.names(room))}")
    cls = catalog.load(room, name)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in options:
        if key not in known:
            raise UsageError(f"{subject}: {name} has no option {quoted(key)}{near(key, [*known, *also])}")
    hints = get_type_hints(cls)
    for key in options.keys() & hints.keys():
        if hints[key] == tuple[Constraint, ...] and isinstance(options[key], list):
            options[key] = [build_constraint(part) for part in options[key]]
        elif hints[key] is Constraint and isinstance(options[key], str | Mapping):
            options[key] = build_constraint(options[key])
        elif hints[key] is Solver and isinstance(options[key], str | Mapping):
            inner = {"name": options[key]} if isinstance(options[key], str) else options[key]
            options[key] = build(room, inner, f"{subject}.{key}", Solver)  # type: ignore[type-abstract]
    for key, value in options.items():
        if not _is_a(value, hints[key]):
            wanted = str(known[key].type).replace(" | None", " or null")
            raise UsageError(f"{subject}.{key}: {quoted(value)}; {name} needs {wanted} there")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        made = cls(**values)
    except (TypeError, ValueError) as e:
        raise UsageError(f"{subject}: {name}: {e}") from None
    if not isinstance(made, kind):
        raise TypeError(f"{cls.__name__} is not a {kind.__name__}")
    return made


def build_constraint(given: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> Constraint:
    """The constraint of `with:`: a name, a mapping, or a list of them (= joint set)."""
    if isinstance(given, str):
        given = {"name": given}
    if isinstance(given, Mapping):
        return build("constraints", given, "constrain.with", Constraint)  # type: ignore[type-abstract]
    parts = tuple(build_constraint(g) for g in given)
    if not parts:
        raise UsageError("constrain.with: an empty list; name at least one constraint")
    try:
        return together(parts)
    except (TypeError, ValueError, ConstraintError) as e:
        raise UsageError(f"constrain.with: {e}") from None


def check_needs(room: str, settings: Mapping[str, Any], needs: Collection[str]) -> None:
    """UsageError when a method asks for a statistic that nothing measures."""
    for name in sorted(set(needs) - STATISTICS.keys()):
        raise UsageError(
            f"{room}: {settings.get('name')} needs the statistic {quoted(name)}, which nothing measures"
            f"; known: {', '.join(STATISTICS)}"
        )


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a recipe's value is of the plain type that an option declares; other types check for themselves."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not set(options) <= {int, float, str, bool, NoneType}:
        return not isinstance(value, Mapping)
    if isinstance(value, bool):
        return bool in options
    if isinstance(value, int):
        return int in options or float in options
    return type(value) in options
