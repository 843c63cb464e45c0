"""Tensors that code makes from nothing but a size: zeros_like, new_zeros, full_like and the like. Constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View
from secateur.graph.program import Call, Program, shape_of

_LIKE = frozenset(f"aten.{n}_like.default" for n in ("zeros", "ones", "full"))
_NEW = frozenset(f"aten.new_{n}.default" for n in ("zeros", "ones", "full"))


class Creation(Operator):
    """Of the input only the size is read; a size taken from the input follows its channels, a literal one does not."""

    targets: ClassVar[frozenset[str]] = _LIKE | _NEW

    def positive(self, node: Call, view: View) -> Tensor:
        return torch.zeros(shape_of(node), device=view.mask(node.args[0]).device)

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        return see(node.args[0]) if str(node.target) in _LIKE else torch.zeros(shape_of(node), dtype=torch.int64)
