"""aten.batch_norm in eval mode: per channel y = (x - mean) / sqrt(var + eps) * gamma + beta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, argument, reduce_to
from secateur.graph.program import Call, Program

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
        rows = labels.along(x, 1)
        if rows is None:
            labels.pin(x)
        for part in _PARTS:
            given = getattr(argument(node, part), "name", "")
            name = program.params.get(given) or program.buffers.get(given)
            if rows is not None and name:
                labels.attach(name, 0, rows)
            elif given and not name:
                labels.pin(x)
        return (x, x, x) if "native" in str(node.target) else x

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        names = [program.params.get(getattr(argument(node, k), "name", "")) for k in ("weight", "bias")]
        return {n: Use("norm") for n in names if n}
