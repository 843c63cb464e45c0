"""Two tensors multiplied as matrices: an adjacency or attention with what it gathers, a parameter of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View, told
from secateur.graph.program import Call, Program, shape_of


class Product(Operator):
    """y[.., i, j] = sum_k a[.., i, k] b[.., k, j]: channels pass along i and j, and must not be summed over.

    With a parameter as b it is a linear layer whose inputs are the parameter's rows. Between activations that both
    have channels along k (scores of attention) code mostly divides by their number: they stay.
    """

    targets: ClassVar[frozenset[str]] = frozenset({"aten.matmul.default", "aten.mm.default", "aten.bmm.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        a, b = node.args[:2]
        out: Tensor = view.mask(a) @ view.nonzero(b) + view.nonzero(a) @ view.mask(b)
        return out

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        return ~live & (view.value(source) == 0)  # a product with nothing is nothing

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        a, b = node.args[:2]
        if min(len(shape_of(a)), len(shape_of(b))) < 2:
            raise ValueError("a vector")
        out, weight = torch.Size(shape_of(node)), program.params.get(b.name)
        if weight and len(program.shapes[weight]) == 2:
            labels.attach(weight, 0, labels.joined(see(a), -1))
            return labels.made(weight, 1, out[-1]).expand(out).clone()
        la, lb = labels.roots(see(a)), labels.roots(see(b))
        if la.dim() - 1 in labels.varies(la) or lb.dim() - 2 in labels.varies(lb):
            for part in (la, lb):
                labels.pin(part, f"{told(node)} multiplies them with each other")
        here, there = la.amax(-1, keepdim=True), lb.amax(-2, keepdim=True)
        if not labels.varies(here):
            return there.expand(out).clone()
        if labels.varies(there):
            labels.union(here.expand(out), there.expand(out))
        return here.expand(out).clone()

    def makes(self, node: Call, program: Program) -> tuple[str, int] | None:
        weight = program.params.get(node.args[1].name)
        return (weight, 1) if weight and len(program.shapes[weight]) == 2 else None
