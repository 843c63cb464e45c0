"""aten.linear: y[..., o] = sum_i w[o, i] x[..., i] + b[o]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, positions, reduce_to
from secateur.graph.program import Call, Program, owner, shape_of


class Linear(Operator):
    """Producer of channels along the last axis, reader along the same axis of its input."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.linear.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        return nn.functional.linear(view.mask(node.args[0]), view.weight(node.args[1]))

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        if source is not node.args[0]:
            return None
        return absorbable(node, source, live, program, view, axis=live.dim() - 1, padded=False)

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
        return {bias: reduce_to(need, need.dim() - 1)} if bias else {}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        weight, out = program.params[node.args[1].name], shape_of(node)
        x = see(node.args[0])
        labels.attach(weight, 1, labels.joined(x, x.dim() - 1))
        made = produce(node, weight, labels, program)
        return made.expand(out).clone()

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        return weight_sites(node, program, "linear")

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        return ((program.params[node.args[1].name], 0),)


def produce(node: Call, weight: str, labels: Labels, program: Program) -> Tensor:
    """Labels of a weight's output rows (new ones, or the ones it has when the weight is used twice); bias attached."""
    made = labels.made(weight, 0, program.shapes[weight][0])
    bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
    if bias:
        labels.attach(bias, 0, made)
    return made


def weight_sites(node: Call, program: Program, op: str, groups: int = 1) -> dict[str, Use]:
    """The weight and the bias of a linear or convolution call, outputs along the weight's axis 0."""
    weight = program.params[node.args[1].name]
    found = {weight: Use(op, positions(node, program.shapes[weight][0], program), groups=groups)}
    bias = program.params.get(getattr(argument(node, "bias"), "name", ""))
    if bias:
        found[bias] = Use("bias")
    return found


def can_take_bias(node: Call, program: Program) -> bool:
    """May a constant be added to this call's output through its bias, present or made?"""
    weight, bias = node.args[1], argument(node, "bias")
    uses = sum(
        1 for n in program.calls for a in n.all_input_nodes if program.params.get(a.name) == program.params[weight.name]
    )
    if uses > 1:
        return False
    if bias is None:
        kind = program.kinds.get(owner(node))
        return kind in (nn.Linear, nn.Conv1d, nn.Conv2d)  # a bias that is made must be read by the class's forward
    name = program.params.get(bias.name)
    if name is None:
        return False
    return sum(1 for n in program.calls for a in n.all_input_nodes if program.params.get(a.name) == name) == 1


def absorbable(
    node: Call, source: Call, live: Tensor, program: Program, view: View, *, axis: int, padded: bool
) -> Tensor:
    """Constants along `axis` that a bias can carry: zeros, or uniform values where no zero padding cuts them off."""
    n = live.shape[axis]
    rows = live.movedim(axis, 0).reshape(n, -1)
    constant = ~rows.any(dim=1)
    if not bool(constant.any()):
        return torch.zeros_like(live)
    values = view.value(source).movedim(axis, 0).reshape(n, -1)
    zero = (values == 0).all(dim=1)
    good = zero
    if not padded and can_take_bias(node, program):
        # The values are computed in double; equal ones differ by rounding only.
        eps = torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
        low, high = values.min(dim=1).values, values.max(dim=1).values
        good = zero | (high - low <= 64 * eps * torch.maximum(low.abs(), high.abs()))
    ok = constant & good
    shape = [1] * live.dim()
    shape[axis] = n
    return ok.reshape(shape).expand_as(live)
