"""aten.embedding: rows picked by an index; its columns are channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, Use, View, reduce_to
from secateur.graph.program import Call, Program, shape_of


class Embedding(Operator):
    """y[..., d] = w[x[...], d]. A look-up multiplies nothing, and the graph does not tell which rows are ever asked
    for: all rows of a column that matters may."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.embedding.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        filled = view.weight(node.args[0]).sum(0)
        return view.mask(node.args[1])[..., None] * filled

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        name = program.params[node.args[0].name]
        return {name: reduce_to(need, need.dim() - 1).expand(program.shapes[name])}

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        if node.args[0].name not in program.params:
            raise ValueError("the table is computed")
        labels.pin(see(node.args[1]), "they pick the rows of an embedding")
        name = program.params[node.args[0].name]
        return labels.made(name, 1, program.shapes[name][1]).expand(torch.Size(shape_of(node))).clone()

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        name = program.params.get(node.args[0].name)
        return {} if name is None else {name: Use("embedding")}

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        return ((program.params[node.args[0].name], 1),)
