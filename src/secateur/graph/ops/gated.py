"""Activations with more than an input: gated linear units, and leaky ones with a slope for each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, reduce_to
from secateur.graph.program import Call, Program


class Glu(Operator):
    """The first half of the channels times the sigmoid of the second; a channel goes with its gate."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.glu.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        x, gate = view.mask(node.args[0]).chunk(2, _axis(node))
        nonzero, _ = view.nonzero(node.args[0]).chunk(2, _axis(node))  # a sigmoid is never zero
        return x + gate * nonzero

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        x, gate = see(node.args[0]).chunk(2, _axis(node))
        labels.union(x, gate)
        return x


class PRelu(Operator):
    """max(x, 0) + slope * min(x, 0), one slope or one a channel."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.prelu.default", "aten._prelu_kernel.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        return view.mask(node.args[0])

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        name = program.params.get(node.args[1].name)
        if name is None:
            return {}
        n = program.shapes[name][0]
        return {name: need.any().expand(n) if n == 1 else reduce_to(need, 1)}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        x, name = see(node.args[0]), program.params.get(node.args[1].name)
        if name is None or len(program.shapes[name]) != 1:
            raise ValueError("the slopes are computed")
        if program.shapes[name][0] > 1:
            labels.attach(name, 0, labels.joined(x, 1))
        return x

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        name = program.params.get(node.args[1].name)
        return {} if name is None else {name: Use("bias")}


def _axis(node: Call) -> int:
    return int(argument(node, "dim", -1))
