"""Which parameters a written file holds, and how: under their names, turned, rearranged, or not at all.

Exporters write a weight as the graph wants it: transposed for a MatMul (`x.T`), the gates of a recurrent cell in
another order, a packed projection in three pieces, or only what is computed from it. What a file is said to hold is
counted in the file; what it does not hold as such is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.export import norms

Array = np.ndarray[Any, Any]
_TURNED = ".T"


@dataclass(frozen=True)
class Stored:
    """The float tensors of a network, looked for in a file.

    Attributes:
        copies: (parameter, its values in the file, untransposed), once per initializer of the parameter's name: one
            that is read both as it is and turned has two. Of tied parameters each has the one initializer.
        rearranged: parameters whose values are in initializers of other names, every nonzero one as often as it must.
        absent: parameters of which the file holds no such values: folded into constants, or of no effect.
    """

    copies: tuple[tuple[str, Array], ...]
    rearranged: tuple[str, ...]
    absent: tuple[str, ...]


def initializers(onnx: bytes) -> dict[str, Array]:
    """The float weights of an ONNX file by parameter name, as the graph uses them: codes times scales, untransposed."""
    return dict(reversed(_copies(onnx)))  # of two copies the plain one


def quantized(onnx: bytes) -> dict[str, set[tuple[float, int, int]]]:
    """Name of a scale -> (its value, the smallest and the largest code) of every QuantizeLinear that reads it."""
    import onnx as onnx_package
    from onnx import numpy_helper

    graph = onnx_package.load_model_from_string(onnx).graph
    constants = {i.name: i for i in graph.initializer}
    found: dict[str, set[tuple[float, int, int]]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and {*node.input[1:]} <= constants.keys():
            scale, zero = (numpy_helper.to_array(constants[i]) for i in (*node.input[1:], node.input[1])[:2])
            ends = np.iinfo(zero.dtype) if zero.dtype.kind in "iu" else np.iinfo(np.uint8)
            shift = int(zero.reshape(-1)[0]) if zero.dtype.kind in "iu" else 0
            entry = (float(scale.reshape(-1)[0]), int(ends.min) - shift, int(ends.max) - shift)
            found.setdefault(node.input[1], set()).add(entry)
    return found


def find(onnx: bytes, state: Mapping[str, Array]) -> Stored:
    """Look for the tensors of `state` (parameters and buffers by name) in an ONNX file.

    Batch-norms are looked for as they are written (`norms.py`).

    A tensor without an initializer of its name counts as rearranged when each of its nonzero values is left over
    among the nameless initializers at least as often as it has it. That says nothing of the order, which the outputs
    tell.
    """
    every = _copies(onnx)
    wanted = {k: v for k, v in norms.as_written(onnx, state).items() if v.dtype.kind == "f"}
    named = {name for name, _ in every} & wanted.keys()
    spare = [a.astype(np.float64).ravel() for name, a in every if name not in wanted]
    pool = np.concatenate(spare) if spare else np.zeros(0)
    values, left = np.unique(pool[pool != 0], return_counts=True)
    tied = {(a.shape, a.tobytes()): a for name, a in every if name in named}
    also: list[tuple[str, Array]] = []
    rearranged, absent = [], []
    for name in sorted(wanted.keys() - named, key=lambda k: (-wanted[k].size, k)):
        if (same := (wanted[name].shape, wanted[name].tobytes())) in tied:
            also.append((name, tied[same]))
            continue
        own = wanted[name].astype(np.float64)
        mine, n = np.unique(own[own != 0], return_counts=True)
        at = np.minimum(np.searchsorted(values, mine), max(len(values) - 1, 0))
        if len(mine) == 0 or (len(values) and np.array_equal(values[at], mine) and bool((left[at] >= n).all())):
            left[at] -= n
            rearranged.append(name)
        else:
            absent.append(name)
    copies = [(name, a) for name, a in every if name in named]
    return Stored((*copies, *also), tuple(sorted(rearranged)), tuple(sorted(absent)))


def _copies(onnx: bytes) -> list[tuple[str, Array]]:
    """(parameter name, array) of every float initializer, in order, the plain ones of equal name first."""
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
    plain = [(k, v) for k, v in found.items() if not k.endswith(_TURNED)]
    turned = [(k.removesuffix(_TURNED), v.T) for k, v in found.items() if k.endswith(_TURNED)]
    return [(k, v) for k, v in [*plain, *turned] if v.dtype.kind == "f"]
