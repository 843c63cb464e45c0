"""Two tensors multiplied as matrices: an adjacency with what it gathers, a parameter of the code, attention in full.

Channels on one side pass through. Where both sides have channels, and other ones at each place beside the product (a
batch axis of a matmul), that is an axis of heads (`attention.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View, told
from secateur.graph.ops.attention import heads
from secateur.graph.ops.binary import met
from secateur.graph.program import Call, Program, shape_of


class Product(Operator):
    """aten.matmul, mm, bmm, baddbmm and einsum of two operands: y[.., i, j] = sum_k a[.., i, k] b[.., k, j].

    With a parameter as b it is a linear layer whose inputs are the parameter's rows. An element moves with either
    factor where the other may be nonzero.
    """

    targets: ClassVar[frozenset[str]] = frozenset(
        {f"aten.{n}.default" for n in ("matmul", "bmm", "mm", "baddbmm", "einsum")}
    )

    def positive(self, node: Call, view: View) -> Tensor:
        a, b = _factors(node)
        out: Tensor = _multiplied(node, view.mask(a), view.nonzero(b)) + _multiplied(
            node, view.nonzero(a), view.mask(b)
        )
        return out + view.mask(node.args[0]).expand(out.shape) if _adds(node) else out

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        return ~live & (view.value(source) == 0)  # a product with nothing is nothing, and so is its sum

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        a, b = _factors(node)
        left, right, out = _equation(node)
        shape = torch.Size(shape_of(node))
        if weight := _weight(node, program):
            labels.attach(weight, 0, labels.joined(see(a), -1))
            return labels.made(weight, 1, shape[-1]).expand(shape).clone()
        parts = [(labels.roots(see(f)), names) for f, names in ((a, left), (b, right))]
        beside = [x for x in out if x in left and x in right]
        if all(labels.active(x) for x, _ in parts) and any(_varies(*part, beside, labels) for part in parts):
            sizes = dict(zip(out, shape, strict=True))
            found = heads(node, [_brought(x, names, beside, sizes) for x, names in parts], labels)
            made = found.reshape([sizes[x] if x in beside else 1 for x in out]).expand(shape)
        else:
            made = _passed(node, parts, out, labels).expand(shape).clone()
        return met(node, made, see(node.args[0]), labels) if _adds(node) else made

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        weight = _weight(node, program)
        return ((weight, 1),) if weight else ()


def _passed(node: Call, parts: list[tuple[Tensor, str]], out: str, labels: Labels) -> Tensor:
    """Channels of either factor along the result's axes. They stay where they are summed over (scores of attention):
    code mostly divides by their number."""
    if any(_varies(x, names, set(names) - set(out), labels) for x, names in parts):
        for x, _ in parts:
            labels.pin(x, f"{told(node)} multiplies them with each other")
    la, lb = (_in_order(x, names, out) for x, names in parts)
    for one, many in ((la, lb), (lb, la)):
        if labels.varies(one):
            continue
        for axis in labels.varies(many):  # as many as the other factor has, which keeps its size
            if one.shape[axis] > 1:
                labels.union(many, many.amax(axis, keepdim=True).expand_as(many))
        return many
    shape = torch.broadcast_shapes(la.shape, lb.shape)
    labels.union(la.expand(shape), lb.expand(shape))
    return la


def _varies(x: Tensor, names: str, axes: Any, labels: Labels) -> bool:
    """Do channels differ along one of these axes?"""
    return any(names[at] in axes for at in labels.varies(x))


def _in_order(x: Tensor, names: str, out: str) -> Tensor:
    """With the result's axes, of size one where the factor lacks them; those that are summed over are gone."""
    for at in reversed(range(len(names))):
        if names[at] not in out:
            x = x.amax(at)
    names = "".join(n for n in names if n in out)
    x = x.permute([names.index(n) for n in out if n in names])
    sizes = iter(x.shape)
    return x.reshape([next(sizes) if n in names else 1 for n in out])


def _weight(node: Call, program: Program) -> str | None:
    """The matrix of parameters that a plain product has on the right."""
    if _adds(node) or "einsum" in str(node.target):
        return None
    name = program.params.get(node.args[1].name)
    return name if name and len(program.shapes[name]) == 2 else None


def _factors(node: Call) -> tuple[Call, Call]:
    if "einsum" in str(node.target):
        a, b = node.args[1]
        return a, b
    return (node.args[1], node.args[2]) if _adds(node) else (node.args[0], node.args[1])


def _adds(node: Call) -> bool:
    return "baddbmm" in str(node.target)


def _multiplied(node: Call, a: Tensor, b: Tensor) -> Tensor:
    if "einsum" in str(node.target):
        return torch.einsum(node.args[0], a, b)
    return torch.matmul(a, b)


def _equation(node: Call) -> tuple[str, str, str]:
    """The axes of both factors and of the result by letters; a matmul's as einsum would write them."""
    a, b = (len(shape_of(f)) for f in _factors(node))
    if "einsum" not in str(node.target):
        if min(a, b) < 2:
            raise ValueError("a product with a vector has no places beside it")
        beside = "ABCDEFGHIJ"[: max(a, b) - 2]
        return beside[len(beside) - a + 2 :] + "xy", beside[len(beside) - b + 2 :] + "yz", beside + "xz"
    equation = str(node.args[0]).replace(" ", "")
    given, arrow, out = equation.partition("->")
    left, comma, right = given.partition(",")
    plain = all(len(set(x)) == len(x) for x in (left, right, out)) and "." not in equation and arrow and comma
    if not plain or (len(left), len(right)) != (a, b):
        raise ValueError("an einsum of another form")
    return left, right, out


def _brought(x: Tensor, names: str, beside: list[str], sizes: dict[str, int]) -> Tensor:
    """Labels as [places beside the product, the rest]; axes that the operand lacks are repeated."""
    rest = [i for i, n in enumerate(names) if n not in beside]
    there = [names.index(n) for n in beside]
    moved = x.permute(*there, *rest)
    tail = moved.shape[len(there) :]
    moved = moved.expand(*(sizes[n] for n in beside), *tail)
    return moved.reshape(math.prod(sizes[n] for n in beside), -1)
