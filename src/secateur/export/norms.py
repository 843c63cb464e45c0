"""Batch-norm with two vectors instead of four: in a written file the statistics are part of scale and shift.

    gamma (x - mean) / sqrt(var + eps) + beta  =  gamma' x / sqrt(1 + eps) + beta'

The file keeps all four names; mean is 0 and var is 1 there, which cost a few bytes each. The module keeps its own
statistics, for in training mode gamma means something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_NAMES = ("weight", "bias", "running_mean", "running_var")


def merged(onnx: bytes, keep: Collection[str] = ()) -> bytes:
    """The file with the statistics of its batch-norms in their scales and shifts.

    Left as they are: norms that have a parameter in `keep` (a set acts on it), that share a vector with another node,
    or that are not float32.
    """
    import onnx as onnx_package
    from onnx import numpy_helper

    model = onnx_package.load_model_from_string(onnx)
    tensors = {i.name: i for i in model.graph.initializer}
    for names, eps in _norms(model.graph):
        if set(names) & set(keep):
            continue
        old = [numpy_helper.to_array(tensors[n]) for n in names]
        if all(a.dtype == np.float32 for a in old):
            for name, array in zip(names, _merge(old, eps), strict=True):
                tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString(deterministic=True))


def as_written(onnx: bytes, state: Mapping[str, Array]) -> dict[str, Array]:
    """`state` (parameters and buffers by name) as a file holds it that was merged where `onnx` is."""
    import onnx as onnx_package
    from onnx import numpy_helper

    graph = onnx_package.load_model_from_string(onnx).graph
    tensors = {i.name: i for i in graph.initializer}
    found = dict(state)
    for names, eps in _norms(graph):
        if all(n in state for n in names) and _plain(*(numpy_helper.to_array(tensors[n]) for n in names[2:])):
            found.update(zip(names, _merge([state[n] for n in names], eps), strict=True))
    return found


def _norms(graph: Any) -> Iterator[tuple[list[str], float]]:
    """The four names and epsilon of every batch-norm whose vectors are its own, under the names a module gives them."""
    constant = {i.name for i in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for node in graph.node:
        names = list(node.input[1:5])
        prefix = names[0].rpartition(".")[0] if node.op_type == "BatchNormalization" else ""
        own = all(n in constant and uses[n] == 1 for n in names)
        if prefix and own and names == [f"{prefix}.{last}" for last in _NAMES]:
            yield names, next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)


def _merge(arrays: list[Array], eps: float) -> list[Array]:
    """Scale, shift, mean 0, variance 1; in double, so that vectors which are merged already come out as they are."""
    gamma, beta, mean, var = (a.astype(np.float64) for a in arrays)
    step = gamma / np.sqrt(var + eps)
    made = (step * np.sqrt(1 + eps), beta - mean * step, np.zeros_like(mean), np.ones_like(var))
    return [a.astype(np.float32) for a in made]


def _plain(mean: Array, var: Array) -> bool:
    return not mean.any() and bool((var == 1).all())
