"""aten.conv1d, conv2d, conv3d: channels along axis 1; depthwise channels are coupled to their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, reduce_to
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
        groups, n_out = int(argument(node, "groups")), program.shapes[weight][0]
        x = see(node.args[0])
        read = labels.along(x, 1)
        made = produce(node, weight, labels, program)
        if read is None:
            labels.pin(x)
        elif groups == 1:
            labels.attach(weight, 1, read)
        elif groups == read.numel():
            labels.union(read.repeat_interleave(n_out // groups), made)
            if n_out != groups or not bool((read != 0).all()):
                labels.pin(made)  # several outputs per input: rows would have to go in packs
                labels.pin(read)
        else:
            # Every group of a grouped convolution must keep the same number of channels: left whole.
            labels.pin(read)
            labels.pin(made)
        return made.reshape(1, -1, *([1] * (len(out) - 2))).expand(out).clone()

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        return weight_sites(node, program, "conv", int(argument(node, "groups")))


def is_depthwise(node: Call, program: Program) -> bool:
    """One input channel and one output channel per group."""
    shape = program.shapes[program.params[node.args[1].name]]
    return int(argument(node, "groups")) == shape[0] and shape[1] == 1
