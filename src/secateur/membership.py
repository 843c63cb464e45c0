"""Is the written network what was asked for? Counted in the ONNX file, on the shapes of the net before the cuts.

This shares nothing with the road that led there: no term that a cut rewrote, no module, no trace. Initializers are
read from the file's bytes, the recorded cuts are undone by putting zeros where something was removed, and the terms
are asked on that, as they stood when their levels were fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur import views
from secateur.types import Level, Term

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Asked:
    """Terms with their levels, and how many of the recorded cuts had been made when they were fixed.

    A term with a given level needs no entry in `levels`.
    """

    terms: tuple[Term, ...]
    levels: Mapping[str, Level]
    n_cuts: int = 0

    def level(self, term: Term) -> Level:
        """The level that was fixed for a term."""
        return self.levels.get(term.site.name, term.level)


def outside(asked: Asked, onnx: bytes, surgery: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sites whose written weights are no members, each with what was asked; empty when all is well.

    Args:
        surgery: all cuts that led to the written net, in order.
    """
    written, there = _uncut(initializers(onnx), surgery[asked.n_cuts :])
    lines = []
    for term in asked.terms:
        names = {m.param for m in term.site.members}
        if not names <= written.keys():
            continue  # nothing of it is in the file: removed whole, or not used
        for part, level in term.constraint.split(asked.level(term)):
            if level is None:
                continue
            matrix = views.matrix(term.site, part.view, written)
            if (
                part.kind == "values" and matrix.numel()
            ):  # what was removed has no value; a weight that cannot matter is written as zero
                inside = views.matrix(term.site, part.view, there)
                matrix = matrix[inside.any(1)][:, inside.any(0)]
                if part.with_free_zero().contains(matrix, level):
                    continue
            if matrix.numel() and not part.contains(matrix, level):
                kind = type(part).__module__.rpartition(".")[2]
                lines.append(f"{term.site.name}: {kind} at level {level} over {', '.join(sorted(names))}")
    return lines


def initializers(onnx: bytes) -> dict[str, Array]:
    """The float weights of an ONNX file by parameter name, as the graph uses them: codes times scales, untransposed."""
    import onnx as onnx_package
    from onnx import numpy_helper

    graph = onnx_package.load_model_from_string(onnx).graph
    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(i in found for i in node.input):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            codes, scale = found[node.input[0]], found[node.input[1]]
            shape = [1] * codes.ndim
            if scale.ndim:
                shape[axis] = -1
            found[node.input[0]] = codes.astype(scale.dtype) * scale.reshape(shape)
    plain = {k.removesuffix(".T"): v.T if k.endswith(".T") else v for k, v in found.items()}
    return {k: v for k, v in plain.items() if v.dtype.kind == "f"}


def _uncut(
    arrays: Mapping[str, Array], surgery: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The arrays on the shapes before the cuts, zeros for what was removed; and masks of what is still there."""
    import torch

    full, there = dict(arrays), {k: np.ones(v.shape, bool) for k, v in arrays.items()}
    for cut in reversed(surgery):
        for edit in reversed(cut["edits"]):
            name, axis = edit["tensor"], edit["axis"]
            if name not in full:
                continue
            for store in (full, there):
                small = store[name]
                shape = [*small.shape]
                shape[axis] = edit["size"]
                large = np.zeros(shape, small.dtype)
                np.moveaxis(large, axis, 0)[edit["keep"]] = np.moveaxis(small, axis, 0)
                store[name] = large
    return (
        {k: torch.from_numpy(np.array(v)) for k, v in full.items()},
        {k: torch.from_numpy(np.array(v)) for k, v in there.items()},
    )
