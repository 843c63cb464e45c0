"""Pools, means and other reductions over positions: each channel keeps its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View, argument, normal_axis, told
from secateur.graph.program import Call, Program, shape_of

_WINDOWS = frozenset(
    f"aten.{n}{d}d.{o}"
    for n in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "upsample_bilinear")
    for d in (1, 2, 3)
    for o in ("default", "vec")
) | frozenset({"aten._adaptive_avg_pool2d.default"})
_REDUCTIONS = frozenset(
    f"aten.{n}.{o}" for n in ("mean", "sum", "amax", "amin") for o in ("dim", "default", "dim_IntList")
)
_MIXERS = frozenset(
    f"aten.{n}.{o}"
    for n in ("softmax", "log_softmax", "_softmax", "_log_softmax", "softmin")
    for o in ("int", "default")
)


class Pool(Operator):
    """Structural and careful: any live position of a channel makes all outputs of that channel live."""

    targets: ClassVar[frozenset[str]] = _WINDOWS | _REDUCTIONS | _MIXERS

    def positive(self, node: Call, view: View) -> Any:
        x, axes = view.mask(node.args[0]), _axes(node)
        many = "adaptive_max" in str(node.target)
        y = _spread(x.sum(dim=axes, keepdim=True), node, axes) if axes else x
        return (y, y) if many else y

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        x, axes = see(node.args[0]), _axes(node)
        y = labels.roots(x)
        for axis in axes:
            top = y.amax(dim=axis, keepdim=True)
            if not bool(((y == top) | (y == 0)).all()):
                labels.pin(x, f"{told(node)} mixes them")
            y = top
        y = _spread(y, node, axes).clone() if axes else y
        return (y, y) if "adaptive_max" in str(node.target) else y


def _axes(node: Call) -> tuple[int, ...]:
    rank = len(shape_of(node.args[0]))
    if str(node.target) in _WINDOWS:
        d = next(int(c) for c in str(node.target).split(".")[1] if c.isdigit())
        return tuple(range(rank - d, rank))
    dim = argument(node, "dim")
    if dim is None or dim == []:
        return tuple(range(rank))
    return tuple(normal_axis(a, rank) for a in ([dim] if isinstance(dim, int) else dim))


def _spread(kept: Tensor, node: Call, axes: tuple[int, ...]) -> Tensor:
    """From reduced axes of size 1 to the call's own output shape."""
    value = node.meta["val"]
    out = tuple(int(s) for s in (value[0] if isinstance(value, tuple | list) else value).shape)
    if len(out) == kept.dim():
        return kept.expand(out)
    return kept.reshape(out) if kept.numel() == math.prod(out) else kept.squeeze(axes).expand(out)
