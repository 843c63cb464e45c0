"""Norms that keep channels apart: batch norm in eval mode, instance norm, group norm (whose groups go as a whole).

Per channel y = (x - mean) / sqrt(var + eps) * gamma + beta.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, reduce_to, told
from secateur.graph.program import Call, Program, owner

_PARTS = ("weight", "bias", "running_mean", "running_var")


class BatchNorm(Operator):
    """A channel with gamma = 0 is a constant; parameters and statistics go with their channel."""

    targets: ClassVar[frozenset[str]] = frozenset(
        {"aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"}
    )

    def positive(self, node: Call, view: View) -> Any:
        x, gamma = view.mask(node.args[0]), argument(node, "weight")
        y = x
        if gamma is not None:
            g = view.weight(gamma) if view.is_param(gamma) else (view.value(gamma) != 0).to(x.dtype)
            y = x * g.reshape(1, -1, *([1] * (x.dim() - 2)))
        return (y, y, y) if "native" in str(node.target) else y

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        names = [program.params.get(getattr(argument(node, k), "name", "")) for k in ("weight", "bias")]
        return {n: reduce_to(need, 1) for n in names if n}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        x = see(node.args[0])
        follow(node, x, labels.joined(x, 1), labels, program)
        return (x, x, x) if "native" in str(node.target) else x

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        names = [program.params.get(getattr(argument(node, k), "name", "")) for k in ("weight", "bias")]
        return {n: Use("norm") for n in names if n}


class InstanceNorm(BatchNorm):
    """Mean and variance of a channel's own positions: what moves somewhere moves the whole channel."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.instance_norm.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        x = view.mask(node.args[0])
        return scaled(node, x.sum(tuple(range(2, x.dim())), keepdim=True).expand_as(x), view)

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        x = see(node.args[0])
        rows = labels.joined(x, 1)
        follow(node, x, rows, labels, program)
        count(node, nn.modules.instancenorm._InstanceNorm, "num_features", rows, labels, program)
        return x


class GroupNorm(BatchNorm):
    """Mean and variance over a group's channels and positions. A group goes whole, or what is left would change."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.group_norm.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        x = view.mask(node.args[0])
        grouped = x.reshape(x.shape[0], int(argument(node, "num_groups")), -1)
        return scaled(node, grouped.sum(2, keepdim=True).expand_as(grouped).reshape(x.shape), view)

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        x, groups = see(node.args[0]), int(argument(node, "num_groups"))
        if groups == 1:
            labels.pin(x, f"{told(node)} takes the mean over all of them")
        at = labels.joined(x, 1).reshape(groups, -1)
        labels.joined(at, 0)
        labels.pin(at[(at == 0).any(1)], f"{told(node)} takes the mean over them and what is no channel")
        follow(node, x, at.flatten(), labels, program)
        if not count(node, nn.GroupNorm, "num_groups", labels.joined(at, 0), labels, program):
            labels.pin(x, f"{told(node)} has its number of groups in the code")
        return x


def scaled(node: Call, x: Tensor, view: View) -> Tensor:
    """Times the nonzero gammas."""
    gamma = argument(node, "weight")
    return x if gamma is None else x * view.weight(gamma).reshape(1, -1, *([1] * (x.dim() - 2)))


def follow(node: Call, x: Tensor, rows: Tensor, labels: Labels, program: Program) -> None:
    """Parameters and statistics of a norm go with their channels."""
    for part in _PARTS:
        given = getattr(argument(node, part), "name", "")
        name = program.params.get(given) or program.buffers.get(given)
        if name:
            labels.attach(name, 0, rows)
        elif given:
            labels.pin(x, f"{told(node)} has a computed {part}")


def count(node: Call, kind: type[nn.Module], attribute: str, rows: Tensor, labels: Labels, program: Program) -> bool:
    """A number of the module that the call belongs to counts these channels; False where it is no such module."""
    module = owner(node)
    if not issubclass(program.kinds.get(module, nn.Module), kind):
        return False
    at = (module, attribute)
    if at in labels.sizes:
        labels.union(torch.from_numpy(labels.sizes[at]), rows)
    labels.sizes[at] = rows.numpy()
    return True
