"""aten.conv_transpose1d, 2d, 3d: every input position is spread over the kernel's outputs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Use, View, argument, positions, reduce_to
from secateur.graph.ops.opaque import Opaque
from secateur.graph.program import Call, Program

_REST = ("stride", "padding", "output_padding", "groups", "dilation")


class TransposedConvolution(Opaque):
    """y[n, o, s p + k] += w[i, o, k] x[n, i, p] + b[o]; the weight is [inputs, outputs of a group, kernel].

    Influence is exact; channels stay (unit removal comes with a rule for `label`).
    """

    targets: ClassVar[frozenset[str]] = frozenset(
        {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"}
    )

    def positive(self, node: Call, view: View) -> Tensor:
        rest = {k: argument(node, k) for k in _REST}
        y: Tensor = node.target(view.mask(node.args[0]), view.weight(node.args[1]), None, **rest)
        return y

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return {bias: reduce_to(need, 1)} if bias else {}

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        weight, groups = program.params[node.args[1].name], int(argument(node, "groups"))
        often = positions(node.args[0], program.shapes[weight][0], program)
        found = {weight: Use("conv_transpose", often, (1,), groups)}
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return found | ({bias: Use("bias")} if bias else {})
