"""Rows picked by a constant index, as windows pick their relative positions from a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View, argument, normal_axis, told
from secateur.graph.program import Call, Program


class Indexing(Operator):
    """y = x[..., index, ...]: one axis of x becomes the axes of `index`, whole numbers that no input changes.

    Channels along the other axes pass; along the picked one they stay, for the index would count others.
    """

    targets: ClassVar[frozenset[str]] = frozenset({"aten.index.Tensor", "aten.index_select.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        axis, at = _picked(node)
        return _taken(view.mask(node.args[0]), axis, view.constant(at))

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        axis, at = _picked(node)
        return _taken(see(node.args[0]), axis, program.constant(at))

    def settle(self, node: Call, out: Any, labels: Labels) -> None:
        # Only now: the entries of a table are one by one channels of their own until what reads them joins them.
        axis, at = _picked(node)
        if set(labels.varies(out)) & {*range(axis, axis + at.meta["val"].dim())}:
            labels.pin(out, f"{told(node)} picks among them")


def _picked(node: Call) -> tuple[int, Call]:
    """The axis that is picked from, and by what; ValueError where several are."""
    if str(node.target).startswith("aten.index_select"):
        return normal_axis(int(argument(node, "dim")), node.args[0].meta["val"].dim()), argument(node, "index")
    found = [(axis, at) for axis, at in enumerate(node.args[1]) if at is not None]
    if len(found) != 1 or found[0][1].meta["val"].dtype not in (torch.int32, torch.int64):
        raise ValueError("several axes, or a mask")
    return found[0]


def _taken(x: Tensor, axis: int, at: Tensor) -> Tensor:
    """x with `axis` replaced by the axes of `at`."""
    found: Tensor = x.index_select(axis, at.flatten().to(x.device)).unflatten(axis, at.shape)
    return found
