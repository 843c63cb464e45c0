"""aten.embedding: rows picked by an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.capture import Call, Program
from secateur.graph.ops._operator import Labels, Operator, Use, View
from secateur.graph.ops.opaque import Opaque

_CAREFUL = Opaque()


class Embedding(Operator):
    """A look-up multiplies nothing. Which rows are ever asked for the graph does not tell: all may matter."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.embedding.default"})

    def positive(self, node: Call, view: View) -> Any:
        return _CAREFUL.positive(node, view)

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        return _CAREFUL.affine(node, need, program)

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        return _CAREFUL.label(node, see, labels, program)

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        name = program.params.get(node.args[0].name)
        return {} if name is None else {name: Use("embedding")}
