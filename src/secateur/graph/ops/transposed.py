"""aten.conv_transpose1d, 2d, 3d: every input position is spread over the kernel's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, positions, reduce_to
from secateur.graph.ops.convolution import one_each, same_places
from secateur.graph.ops.linear import absorbable
from secateur.graph.program import Call, Program, shape_of

_REST = ("stride", "padding", "output_padding", "groups", "dilation")


class TransposedConvolution(Operator):
    """y[n, o, s p + k] += w[i, o, k] x[n, i, p] + b[o]; the weight is [inputs, outputs of a group, kernel]."""

    targets: ClassVar[frozenset[str]] = frozenset(
        {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"}
    )

    def positive(self, node: Call, view: View) -> Tensor:
        rest = {k: argument(node, k) for k in _REST}
        y: Tensor = node.target(view.mask(node.args[0]), view.weight(node.args[1]), None, **rest)
        return y

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        if source is not node.args[0]:
            return None
        # What a constant adds differs from place to place, as the kernel's copies overlap: only zeros go.
        return absorbable(node, source, live, program, view, axis=1, padded=True)

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return {bias: reduce_to(need, 1)} if bias else {}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        weight, out = program.params[node.args[1].name], shape_of(node)
        groups, n_each = int(argument(node, "groups")), program.shapes[weight][1]
        read = labels.joined(see(node.args[0]), 1)
        labels.attach(weight, 0, read)
        if groups == 1:
            made = labels.made(weight, 1, n_each)
        elif groups == read.numel():
            made = read.repeat_interleave(n_each)
            one_each(node, read, made, labels)
        else:
            same_places(node, read, groups, labels)
            made = labels.made(weight, 1, n_each).repeat(groups)
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        if bias:
            labels.attach(bias, 0, made)
        return made.reshape(1, -1, *([1] * (len(out) - 2))).expand(out).clone()

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        weight, groups = program.params[node.args[1].name], int(argument(node, "groups"))
        often = positions(node.args[0], program.shapes[weight][0], program)
        found = {weight: Use("conv_transpose", often, (1,), groups)}
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return found | ({bias: Use("bias")} if bias else {})

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        weight = program.params[node.args[1].name]
        return ((weight, 0 if int(argument(node, "groups")) == program.shapes[weight][0] else 1),)
