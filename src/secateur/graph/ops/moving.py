"""Calls that only move elements: views, permutes, slices, concatenations, paddings. They run as they are on masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from secateur.graph.ops._operator import Labels, Operator, View, argument, normal_axis, told
from secateur.graph.program import Call, Program, owner

_NAMES = (
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze permute transpose t movedim swapaxes expand "
    "expand_as slice select narrow split split_with_sizes chunk unbind tensor_split cat concat stack "
    "pixel_shuffle pixel_unshuffle channel_shuffle roll flip repeat repeat_interleave constant_pad_nd pad zero_pad "
    "unfold alias_copy view_as reshape_as adjoint numpy_T mT"
)
_OVERLOADS = (
    "default",
    "int",
    "dim",
    "dims",
    "Tensor",
    "using_ints",
    "sections",
    "intlist",
    "self_int",
    "sizes",
    "indices",
)
_SIZED = (
    "view",
    "reshape",
    "_unsafe_view",
    "unflatten",
    "expand",
    "slice",
    "select",
    "narrow",
    "split_with_sizes",
    "repeat",
)


_REGRIDS = (  # calls after which channels may lie along two axes
    "view",
    "reshape",
    "_unsafe_view",
    "unflatten",
    "cat",
    "concat",
    "stack",
    "pixel_shuffle",
    "channel_shuffle",
)
_SPLITS = ("split", "split_with_sizes", "chunk", "tensor_split")


class Move(Operator):
    """The output's elements are the input's, elsewhere; padding is no channel."""

    targets: ClassVar[frozenset[str]] = frozenset(f"aten.{n}.{o}" for n in _NAMES.split() for o in _OVERLOADS)

    def positive(self, node: Call, view: View) -> Any:
        return moved(node, view.mask)

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        out = moved(node, see)
        name = str(node.target).split(".")[1]
        if name in ("pad", "constant_pad_nd"):
            out = _pad_labels(node, see(node.args[0]), out, labels, program)
        if name in _SIZED:
            labels.suspect(node.name, see(node.args[0]))
        if name in _SPLITS:
            _alike(node, out, labels)
        return out

    def settle(self, node: Call, out: Any, labels: Labels) -> None:
        if isinstance(out, Tensor) and str(node.target).split(".")[1] in _REGRIDS:
            _on_a_grid(node, out, labels)


def moved(node: Call, see: Callable[[Any], Tensor]) -> Any:
    """What the call gives when each of its inputs is the tensor that `see` shows."""
    args = fx.node.map_arg(node.args, see)
    kwargs = fx.node.map_arg(node.kwargs, see)
    name = str(node.target).split(".")[1]
    if name in ("pad", "constant_pad_nd"):
        # Padding brings in constants: element 0, whatever the value.
        mode = (
            args[2]
            if name == "pad" and len(args) > 2
            else kwargs.get("mode", "constant")
            if name == "pad"
            else "constant"
        )
        if mode == "constant":
            return torch.nn.functional.pad(args[0], args[1])
        moved = torch.nn.functional.pad(args[0].to(torch.float64), args[1], mode=mode)
        return moved.to(args[0].dtype)
    if name in ("view", "_unsafe_view") and len(args) == 2:
        return args[0].reshape(args[1])  # masks and labels need not lie in memory as the activations do
    return node.target(*args, **kwargs)


def _on_a_grid(node: Call, out: Tensor, labels: Labels) -> None:
    """What is removed must leave a full grid: where channels lie along two axes, some of them go together.

    A view that splits an axis keeps its first factor (groups, heads) and gives of the last one, as code mostly has
    it; what is joined or stacked gives the same of every part; a channel of sub-pixels goes whole.
    """
    name = str(node.target).split(".")[1]
    if name == "channel_shuffle":
        out = out.unflatten(1, (-1, int(argument(node, "groups"))))
    axes = labels.varies(out)
    if name == "channel_shuffle" and 1 in axes:
        labels.joined(out, 1)
    elif name == "pixel_shuffle" and axes:
        labels.joined(out, out.dim() - 3)
    elif len(axes) > 1:
        joint = normal_axis(int(argument(node, "dim", 0)), out.dim()) if name in ("cat", "concat", "stack") else None
        labels.joined(out, [axis for axis in axes if axis != joint][-1])


def _alike(node: Call, parts: Any, labels: Labels) -> None:
    """Parts of one size stay of one size: channels at one place in all parts go together. Sizes in the code stay."""
    first, *others = parts
    axis = normal_axis(int(argument(node, "dim", 0)), first.dim())
    if not any(axis in labels.varies(part) for part in parts):
        return
    for part in others:
        if part.shape == first.shape:
            labels.union(first, part)
        else:
            for p in parts:
                labels.pin(p, f"{told(node)} has the sizes of its parts in the code")


def _pad_labels(node: Call, x: Tensor, out: Tensor, labels: Labels, program: Program) -> Tensor:
    """Channels that a padding layer adds can be taken away again; what padding does not own is left alone.

    Nonzero padding beside a channel is a value of its own: the channels it touches stay.
    """
    value = argument(node, "value")
    if value not in (None, 0, 0.0):
        labels.pin(x, f"{told(node)} puts a value beside them")
        return out
    module = owner(node)
    if not issubclass(program.kinds.get(module, nn.Module), nn.ConstantPad1d | nn.ConstantPad2d | nn.ConstantPad3d):
        return out
    if (module, 0) in labels.pads:
        labels.pin(x, f"{told(node)} is called twice")  # its sizes would have to fit both
        return out
    out = out.clone()
    amounts = [int(a) for a in argument(node, "pad")]
    for pair in range(len(amounts) // 2):
        axis = x.dim() - 1 - pair
        before, after = amounts[2 * pair], amounts[2 * pair + 1]
        rows = labels.along(x, axis)
        if min(before, after) < 0 or not before + after or rows is None or not labels.active(rows):
            continue
        for side, at, n in ((2 * pair, 0, before), (2 * pair + 1, before + x.shape[axis], after)):
            made = labels.new(n)
            labels.pads[module, side] = made.numpy()
            part = out.narrow(axis, at, n)
            shape = [1] * x.dim()
            shape[axis] = n
            part.copy_(made.reshape(shape).expand_as(part))
    return out
