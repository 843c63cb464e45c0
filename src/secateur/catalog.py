"""The folder is the registry: file names are method names, one public class a file.

`names("constraints")` lists files without importing them; `load("constraints", "topk")` imports one and
returns its single public class. Outside packages add methods through the entry-point group
`secateur.<room>`, under the same rule (entry name = method name, value = the class).
"""

from __future__ import annotations

import importlib
import inspect
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from secateur import errors
from secateur.limits import quoted

ROOMS = ("constraints", "saliencies", "solvers", "objectives", "budget.meters", "formats.layouts", "formats.codecs")


def names(room: str) -> list[str]:
    """Method names of a room, sorted; nothing is imported."""
    folder = Path(__file__).parent.joinpath(*room.split("."))
    own = [p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")]
    return sorted({*own, *_outside(room)})


@cache
def load(room: str, name: str) -> type:
    """The one public class of `room`/`name`; import errors of the method pass through unchanged.

    A room's `RENAMED` holds names that were given up: what was written with them is still read.
    """
    outside = _outside(room)
    if name in outside:
        return outside[name].load()  # type: ignore[no-any-return]
    name = getattr(importlib.import_module(f"secateur.{room}"), "RENAMED", {}).get(name, name)
    if name not in names(room):
        near = get_close_matches(name[:80], names(room), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise errors.UsageError(f"{room}: no method named {quoted(name)}; known: {', '.join(names(room))}{hint}")
    module = importlib.import_module(f"secateur.{room}.{name}")
    classes = [
        c
        for n, c in vars(module).items()
        if inspect.isclass(c) and c.__module__ == module.__name__ and not n.startswith("_")
    ]
    if len(classes) != 1:
        found = ", ".join(c.__name__ for c in classes) or "none"
        raise TypeError(f"{module.__name__} must hold exactly one public class, found {found}")
    return classes[0]


@cache
def _outside(room: str) -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=f"secateur.{room}")}
