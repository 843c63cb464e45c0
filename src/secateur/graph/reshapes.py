"""Reshapes whose sizes the code computes or writes down, in a module that runs on fewer heads than it was written for.

`x.reshape(b, n, c)` with `c` read off the input holds as many heads as there were. The module becomes torch's graph of
its calls (`fx.Tracer`), its parameters under their names, in which the size that shrinks reads -1. A module whose code
branches, that is called twice, or that does otherwise in training has no such form and stays.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateur.errors import FormatError
from secateur.graph.coupling import Coupling
from secateur.graph.program import Call, Program, owner

_NAMES = ("reshape", "view")
_COMPUTED = (operator.floordiv, operator.mul, operator.truediv, operator.add, operator.sub)


def rows(
    model: nn.Module, program: Program, coupling: Coupling, removed: Collection[int], names: Collection[str]
) -> list[dict[str, Any]]:
    """The record of what is rewritten in the modules of `names`: by call, its sizes; null: as the code has it.

    Args:
        removed: classes of channels.
    """
    found = []
    for name in names:
        graph = traced(model.get_submodule(name)) if name else None
        made = [n for n in program.calls if owner(n) == name and _kind(n) in _NAMES]
        if graph is None:
            continue
        asked = [n for n in graph.nodes if _is_reshape(n)]
        if len(asked) != len(made):
            continue
        calls = {}
        for node, call in zip(asked, made, strict=True):
            sizes = _sizes(node, call, coupling.elements.get(call), removed)
            if sizes is not None:
                calls[node.name] = sizes
        if calls:
            found.append({"module": name, "calls": calls})
    return found


def replay(model: nn.Module, row: Mapping[str, Any]) -> None:
    """Put the graph of one module in its place, its reshapes rewritten.

    Raises:
        FormatError: there is no such module or call.
    """
    name = str(row["module"])
    module = dict(model.named_modules()).get(name)
    graph = traced(module) if module is not None and name else None
    nodes = {n.name: n for n in graph.nodes if _is_reshape(n)} if graph is not None else {}
    if module is None or graph is None or not row["calls"].keys() <= nodes.keys():
        raise FormatError(f"surgery: {name!r} has no calls {', '.join(row['calls'])}")
    for call, sizes in row["calls"].items():
        own = _given(nodes[call])
        if len(own) != len(sizes):
            raise FormatError(f"surgery: {name!r}: {call} has {len(own)} sizes, the record {len(sizes)}")
        merged = [a if s is None else int(s) for a, s in zip(own, sizes, strict=True)]
        nodes[call].args = (nodes[call].args[0], tuple(merged))
    graph.lint()
    parent, _, key = name.rpartition(".")
    made = fx.GraphModule(module, graph, type(module).__name__).train(module.training)
    setattr(model.get_submodule(parent), key, made)


class _Calls(fx.Tracer):
    """With the calls on buffers: else they are done while tracing, and left as constants in the module."""

    proxy_buffer_attributes = True


def traced(module: nn.Module) -> fx.Graph | None:
    """The calls of a module, where they are the same in training and evaluation; its mode is as before."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        graphs = [_Calls().trace(module.train(mode)) for mode in (True, False)]
    except Exception:  # whatever the user's code does with a proxy
        return None
    finally:
        for m, mode in modes:
            m.training = mode
    texts = [g.python_code("self").src for g in graphs]
    return graphs[1] if texts[0] == texts[1] else None


def _sizes(node: fx.Node, call: Call, classes: Any, removed: Collection[int]) -> list[int | None] | None:
    """What the sizes of a reshape become; None where none shrinks, or they are no list."""
    given, value = _given(node), call.meta["val"]
    if not isinstance(classes, Tensor) or len(given) != value.dim():
        return None
    free = not any(a == -1 for a in given)  # may one read -1?
    gone = torch.isin(classes, torch.tensor(sorted(removed), dtype=torch.int64))
    found: list[int | None] = []
    for axis, (size, own) in enumerate(zip(value.shape, given, strict=True)):
        less = int(gone.movedim(axis, 0).reshape(size, -1).all(1).sum())
        if less and own != -1:
            found.append(-1 if free else int(size) - less)
            free = False
        else:
            computed = isinstance(own, fx.Node) and own.target in _COMPUTED
            found.append(int(size) if computed else None)
    return found if any(s is not None for s in found) and bool(gone.any()) else None


def _given(node: fx.Node) -> list[Any]:
    rest = node.args[1:]
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], tuple | list) else list(rest)


def _is_reshape(node: fx.Node) -> bool:
    return node.target in (*_NAMES, torch.reshape) and node.op in ("call_method", "call_function")


def _kind(call: Call) -> str:
    return str(call.target).removeprefix("aten.").partition(".")[0]
