"""The program of a network on smaller pictures: for questions whose answers are estimates and are asked often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import ConstraintError, UnsupportedError
from secateur.graph.capture import capture
from secateur.graph.example import Example
from secateur.graph.ops import rule
from secateur.graph.program import Call, Program

LEAST = 48  # pixels of a side: behind five halvings there are still two, so that every tap of a 3x3 kernel meets some


def thumbnail(model: nn.Module, example: Example, program: Program) -> Program | None:
    """`program` of every second or fourth ... pixel of large pictures; None where they are small, or the code minds.

    Masks of influence are as large as the activations. Which channels are alive does not hang on the pictures' size,
    but for kernels of which all taps but those at a border are zero.
    """
    sides = [min(t.shape[-2:]) for t in tree_leaves(example.inputs) if _picture(t)]
    step = 1
    while sides and min(sides) // (2 * step) >= LEAST:
        step *= 2
    if step == 1:
        return None
    found = _propagated(program, step) or _captured(model, example, step)
    same = found is not None and [n.target for n in found.calls] == [n.target for n in program.calls]
    if found is None or not same or found.shapes != program.shapes:
        return None
    for n, m in zip(
        program.calls, found.calls, strict=True
    ):  # of what kind a call is hangs on no size, and is tried out
        n.meta["kind"] = rule(m, found)
    return found


def _propagated(program: Program, step: int) -> Program | None:
    """The same calls, their values' shapes found out anew; None where a size in the code does not bear it."""
    example = {k: t[..., ::step, ::step].contiguous() if _picture(t) else t for k, t in program.example.items()}
    graph, twins = fx.Graph(), dict[Call, Call]()
    for n in program.nodes:
        twins[n] = graph.node_copy(n, twins.__getitem__)
        twins[n].name = n.name  # by which a program knows what comes in; a copy may get another
    fewer = replace(program, nodes=tuple(twins.values()), example=example, _noisy={}, _constants={})
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            for m in fewer.nodes:
                m.meta.pop("kind", None)
                if m.op in ("placeholder", "get_attr"):
                    value = fewer.given(m)
                    m.meta["val"] = mode.from_tensor(value) if isinstance(value, Tensor) else m.meta.get("val")
                elif m.op == "call_function":
                    args, kwargs = fx.node.map_arg((m.args, m.kwargs), lambda a: a.meta["val"])
                    m.meta["val"] = m.target(*args, **kwargs)
    except Exception:  # whatever torch says of sizes that do not go together
        return None
    return fewer


def _captured(model: nn.Module, example: Example, step: int) -> Program | None:
    """The model traced again."""
    fewer = tree_map(lambda t: t[..., ::step, ::step].contiguous() if _picture(t) else t, example.inputs)
    try:
        return capture(model, replace(example, inputs=fewer))
    except (UnsupportedError, ConstraintError):  # a size that the code is written for
        return None


def _picture(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dim() >= 4 and t.is_floating_point()
