"""One file per operator kind; a new kind is one new file. `rule(node)` finds the kind of a call."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateur.graph.ops._operator import Labels, Operator, View, shaped
from secateur.graph.ops.opaque import Opaque
from secateur.graph.program import Call, Program, shape_of


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
    """The operator kind that covers a call; Opaque when none does, or when the one that should does not fit the call.

    Kinds run calls on masks and labels in place of values; a call that they do not bear (indices, numbers taken from
    values, an option nobody thought of) is left to the careful default.
    """
    known = node.meta.get("kind")
    if isinstance(known, Operator):
        return known
    kind = _table().get(str(node.target), _OPAQUE)
    if kind is not _OPAQUE and not (_plain_weight(node, program) and _fits(kind, node, program)):
        kind = _OPAQUE
    node.meta["kind"] = kind
    return kind


def _plain_weight(node: Call, program: Program) -> bool:
    name = str(node.target)
    if "aten.conv" in name and len(shape_of(node.args[0])) != len(shape_of(node.args[1])):
        return False  # one example without a batch axis
    # A weight may also be computed from others (weight norm, a slice).
    return not name.startswith(("aten.linear", "aten.conv")) or getattr(node.args[1], "name", "") in program.params


def _fits(kind: Operator, node: Call, program: Program) -> bool:
    """Do both questions get answers of the call's own shape?"""

    def ones(a: Call) -> Any:
        return shaped(a.meta["val"], torch.ones)

    def pinned(a: Call) -> Any:
        label = Labels.PIN if a.name in program.inputs or a.op == "call_function" else 0
        return shaped(a.meta["val"], lambda shape: torch.full(shape, label))

    if any(not isinstance(v, Tensor) for a in node.all_input_nodes for v in tree_leaves(a.meta.get("val"))):
        return False
    view = View(ones, ones, ones, ones, lambda a: getattr(a, "name", "") in program.params, program.constant)
    wanted = _shapes(node.meta["val"])
    try:
        answers = kind.positive(node, view), kind.label(node, pinned, Labels(), program)
    except (RuntimeError, IndexError, TypeError, ValueError):  # torch's, at masks where it expected indices
        return False
    return all(_shapes(answer) == wanted for answer in answers)


def _shapes(answer: Any) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tree_leaves(answer) if isinstance(t, Tensor)]
