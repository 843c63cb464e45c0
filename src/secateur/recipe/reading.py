"""Changes from the command line, and what to say of a recipe that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from secateur.errors import UsageError
from secateur.limits import QUOTED, near, quoted, read_yaml


def override(raw: dict[str, Any], item: str) -> None:
    """Apply one `a.b=c` to a raw recipe, in place."""
    key, eq, value = item.partition("=")
    if not eq or not key:
        raise UsageError(f"--set {quoted(item)}: give key=value, as --set solver.epochs=5")
    at: Any = raw
    *path, last = key.split(".")
    for part in path:
        if isinstance(at, list):
            at = _element(at, part, item)
        else:
            if not isinstance(at.get(part), dict | list):
                at[part] = {}
            at = at[part]
    try:
        parsed = read_yaml(value)
    except ValueError as e:
        raise UsageError(f"--set {quoted(item)}: the value is not valid YAML: {e}") from None
    if isinstance(at, list):
        _element(at, last, item)
        at[int(last)] = parsed
    else:
        at[last] = parsed


def _element(items: list[Any], part: str, item: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise UsageError(f"--set {quoted(item)}: {quoted(part)} is not an index below {len(items)}")
    return items[int(part)]


def explain(error: ValidationError, subject: str, models: Mapping[str, type[BaseModel]]) -> str:
    """One line for all that is wrong; `models`: "" is the whole recipe, others its sections."""
    lines = []
    for e in error.errors():
        where = ".".join(str(p)[:QUOTED] for p in e["loc"] if not str(p).startswith(("function-", "list[", "dict[")))
        if e["type"] == "extra_forbidden":
            section = models.get(str(e["loc"][0]), models[""]) if len(e["loc"]) > 1 else models[""]
            known = [f.alias or n for n, f in section.model_fields.items()]
            lines.append(f"unknown key {quoted(where)}{near(str(e['loc'][-1]), known)}")
        else:
            message = e["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where and not message.startswith(where) else message)
    return f"{subject}: " + "; ".join(dict.fromkeys(lines))
