"""One file per operator kind; a new kind is one new file. `rule(node)` finds the kind of a call."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path

from secateur.graph.capture import Call, Program, shape_of
from secateur.graph.ops._operator import Operator
from secateur.graph.ops.opaque import Opaque


@cache
def _table() -> dict[str, Operator]:
    found: dict[str, Operator] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"{__name__}.{path.stem}")
        for c in vars(module).values():
            if inspect.isclass(c) and issubclass(c, Operator) and c.__module__ == module.__name__:
                found.update(dict.fromkeys(c.targets, c()))
    return found


_OPAQUE = Opaque()


def rule(node: Call, program: Program) -> Operator:
    """The operator kind that covers a call; Opaque when none does, or when a weight is not a parameter itself."""
    kind = _table().get(str(node.target), _OPAQUE)
    if "aten.conv" in str(node.target) and len(shape_of(node.args[0])) != len(shape_of(node.args[1])):
        return _OPAQUE  # one example without a batch axis
    if (
        str(node.target).startswith(("aten.linear", "aten.conv"))
        and getattr(node.args[1], "name", "") not in program.params
    ):
        return _OPAQUE  # a weight computed from others (weight norm, a slice)
    return kind
