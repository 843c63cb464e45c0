"""aten.conv1d, conv2d, conv3d: channels along axis 1; depthwise channels are coupled to their inputs, grouped ones to
those at their place in the other groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, reduce_to, told
from secateur.graph.ops.linear import absorbable, produce, weight_sites
from secateur.graph.program import Call, Program, shape_of


class Convolution(Operator):
    """y[n, o] = sum_i w[o, i] * x[n, i] + b[o], zero padding, stride, dilation, groups."""

    targets: ClassVar[frozenset[str]] = frozenset(
        f"aten.conv{d}d.{kind}" for d in (1, 2, 3) for kind in ("default", "padding")
    )

    def positive(self, node: Call, view: View) -> Tensor:
        rest = {k: argument(node, k) for k in ("stride", "padding", "dilation", "groups")}
        y: Tensor = node.target(view.mask(node.args[0]), view.weight(node.args[1]), None, **rest)
        return y

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        if source is not node.args[0]:
            return None
        padding = argument(node, "padding")
        kernel = program.shapes[program.params[node.args[1].name]][2:]
        padded = (padding != "valid" and max(kernel) > 1) if isinstance(padding, str) else any(padding)
        return absorbable(node, source, live, program, view, axis=1, padded=padded)

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return {bias: reduce_to(need, 1)} if bias else {}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        weight, out = program.params[node.args[1].name], shape_of(node)
        groups, x = int(argument(node, "groups")), see(node.args[0])
        read, made = labels.joined(x, 1), produce(node, weight, labels, program)
        if groups == 1:
            labels.attach(weight, 1, read)
        elif groups == read.numel():
            one_each(node, read, made, labels)
        else:
            labels.attach(weight, 1, same_places(node, read, groups, labels))
            same_places(node, made, groups, labels)
        return made.reshape(1, -1, *([1] * (len(out) - 2))).expand(out).clone()

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        return weight_sites(node, program, "conv", int(argument(node, "groups")))

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        return ((program.params[node.args[1].name], 0),)


def one_each(node: Call, read: Tensor, made: Tensor, labels: Labels) -> None:
    """Depthwise: a channel goes with all that its own filters make of it."""
    read = read.repeat_interleave(len(made) // len(read))
    labels.union(read, made)
    labels.pin(made[read == 0], f"{told(node)} makes them of what is no channel")


def same_places(node: Call, channels: Tensor, groups: int, labels: Labels) -> Tensor:
    """Every group keeps as many channels as the others: those at one place in all groups go together, [places]."""
    at = channels.reshape(groups, -1)
    labels.joined(at, 1)
    labels.pin(at[:, (at == 0).any(0)], f"{told(node)} reads what is no channel in their place of another group")
    return at.max(0).values


def is_depthwise(node: Call, program: Program) -> bool:
    """One input channel and one output channel per group."""
    shape = program.shapes[program.params[node.args[1].name]]
    return int(argument(node, "groups")) == shape[0] and shape[1] == 1
