"""Two tensors met element by element: add, sub, mul, div, maximum, minimum. Their channels become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from secateur.graph.ops._operator import Labels, Operator, View, told
from secateur.graph.program import Call, Program, shape_of

_SUMS = frozenset(f"aten.{n}.{o}" for n in ("add", "sub", "rsub") for o in ("Tensor", "Scalar"))
_PRODUCTS = frozenset(f"aten.{n}.{o}" for n in ("mul", "div") for o in ("Tensor", "Scalar"))
_EXTREMES = frozenset(f"aten.{n}.{o}" for n in ("maximum", "minimum", "max", "min") for o in ("default", "other"))


class Binary(Operator):
    """Residual adds, gates and scalings, with broadcasting."""

    targets: ClassVar[frozenset[str]] = _SUMS | _PRODUCTS | _EXTREMES

    def positive(self, node: Call, view: View) -> Tensor:
        a, b = _operands(node)
        if b is None:
            scalar = node.args[1] if len(node.args) > 1 else 1.0
            x = view.mask(a)
            if str(node.target).startswith("aten.mul") and scalar == 0:
                return x * 0
            return x
        ma, mb = view.mask(a), view.mask(b)
        if str(node.target) in _PRODUCTS:
            # A product moves with a live factor only where the other one may be nonzero.
            return ma * view.nonzero(b) + mb * view.nonzero(a)
        shape = shape_of(node)
        return ma.expand(shape) + mb.expand(shape)

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        if str(node.target) not in _SUMS:
            return None
        return ~live & (view.value(source) == 0)  # adding nothing is nothing needed

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        a, b = _operands(node)
        shape = torch.Size(shape_of(node))
        la = see(a)
        if b is None:
            return la.expand(shape)
        return met(node, la, see(b), labels)


def met(node: Call, la: Tensor, lb: Tensor, labels: Labels) -> Tensor:
    """Labels of the elements where two tensors meet."""
    shape = torch.broadcast_shapes(la.shape, lb.shape)
    for one, many in ((lb, la), (la, lb)):
        if _spread_over(one, many, labels):
            if 0 in one.stride():
                labels.suspect(node.name, many)  # repeated as often as the code says
            return many.expand(shape)
    for mine, theirs in ((la, lb), (lb, la)):
        _pin_static(mine, theirs, labels, f"{told(node)} meets a constant of fixed size")
    la, lb = la.expand(shape), lb.expand(shape)
    labels.union(la, lb)
    # A channel that meets padding: sizes in the code may depend on it.
    labels.suspect(node.name, torch.cat((la[lb == 0], lb[la == 0])))
    return torch.where(la != 0, la, lb)


def _spread_over(one: Tensor, many: Tensor, labels: Labels) -> bool:
    """Is `one` a single value (per example, per position) beside all channels in `many`? It binds none of them.

    A value that was repeated along an axis counts once there.
    """
    if bool((one != one.reshape(-1)[:1]).any()) or not labels.active(many):
        return False
    rank = max(one.dim(), many.dim())
    sizes = [1] * (rank - one.dim()) + [size if step else 1 for size, step in zip(one.shape, one.stride(), strict=True)]
    roots = labels.roots(many).reshape([1] * (rank - many.dim()) + list(many.shape))
    varies = [bool((roots != roots.narrow(axis, 0, 1)).any()) for axis in range(rank)]
    return any(varies) and all(size == 1 for size, differs in zip(sizes, varies, strict=True) if differs)


def _operands(node: Call) -> tuple[Call, Call | None]:
    a, b = node.args[0], node.args[1] if len(node.args) > 1 else None
    if not isinstance(a, fx.Node):
        a, b = b, None
    return a, b if isinstance(b, fx.Node) else None


def _pin_static(mine: Tensor, theirs: Tensor, labels: Labels, why: str) -> None:
    """A tensor of fixed size along a channel axis (a constant of the code) keeps the channels."""
    if bool((theirs != 0).any()) or not bool((mine != 0).any()):
        return
    rank = max(mine.dim(), theirs.dim())
    m = labels.roots(mine).reshape([1] * (rank - mine.dim()) + list(mine.shape))
    sizes = [1] * (rank - theirs.dim()) + list(theirs.shape)
    for axis, size in enumerate(sizes):
        if size > 1 and m.shape[axis] > 1 and bool((m != m.narrow(axis, 0, 1)).any()):
            labels.pin(m, why)
            return
