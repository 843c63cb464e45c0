"""aten.embedding: rows picked by an index."""

from __future__ import annotations

from typing import ClassVar

from secateur.graph.ops._operator import Use
from secateur.graph.ops.opaque import Opaque
from secateur.graph.program import Call, Program


class Embedding(Opaque):
    """A look-up multiplies nothing. Which rows are ever asked for the graph does not tell: all may matter."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.embedding.default"})

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        name = program.params.get(node.args[0].name)
        return {} if name is None else {name: Use("embedding")}
