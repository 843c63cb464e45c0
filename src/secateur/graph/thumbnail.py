"""The program of a network on smaller pictures: for questions whose answers are estimates and are asked often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import ConstraintError, UnsupportedError
from secateur.graph.capture import capture
from secateur.graph.example import Example
from secateur.graph.program import Program

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
    fewer = tree_map(lambda t: t[..., ::step, ::step].contiguous() if _picture(t) else t, example.inputs)
    try:
        found = capture(model, replace(example, inputs=fewer))
    except (UnsupportedError, ConstraintError):  # a size that the code is written for
        return None
    same = found.shapes == program.shapes and [n.target for n in found.calls] == [n.target for n in program.calls]
    return found if same else None


def _picture(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dim() >= 4 and t.is_floating_point()
