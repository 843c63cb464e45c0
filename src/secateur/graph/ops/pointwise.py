"""Several tensors met element by element, with broadcasting: comparisons, masks, choices. Their channels become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View
from secateur.graph.ops.binary import met
from secateur.graph.program import Call, Program, shape_of

_NAMES = (
    "gt ge lt le eq ne greater greater_equal less less_equal not_equal logical_and logical_or logical_xor bitwise_and "
    "bitwise_or bitwise_xor __and__ __or__ __xor__ where masked_fill clamp clamp_min clamp_max lerp addcmul addcdiv "
    "fmod remainder floor_divide div pow float_power atan2 hypot copysign logaddexp fmax fmin heaviside xlogy"
)
_OVERLOADS = (
    "default",
    "Tensor",
    "Scalar",
    "self",
    "ScalarSelf",
    "ScalarOther",
    "Tensor_mode",
    "Scalar_mode",
    "Tensor_Tensor",
    "Tensor_Scalar",
    "Scalar_Tensor",
)
_ELSEWHERE = frozenset({"aten.div.Tensor", "aten.div.Scalar"})  # products, `binary.py`
_UNARY = frozenset({f"aten.{n}.default" for n in ("clamp", "clamp_min", "clamp_max")} | {"aten.pow.Tensor_Scalar"})


class Pointwise(Operator):
    """An output element moves with any of the elements it is computed from."""

    targets: ClassVar[frozenset[str]] = (
        frozenset(f"aten.{n}.{o}" for n in _NAMES.split() for o in _OVERLOADS) - _ELSEWHERE - _UNARY
    )

    def positive(self, node: Call, view: View) -> Tensor:
        shape = shape_of(node)
        total = torch.zeros(())
        for source in node.all_input_nodes:
            part = view.mask(source).expand(shape)
            total = total.to(part.device) + part
        return total

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        out, *others = (see(source) for source in node.all_input_nodes)
        for other in others:
            out = met(node, out, other, labels)
        return out.expand(torch.Size(shape_of(node)))
