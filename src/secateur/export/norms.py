"""What the vectors of a net (norms, biases) cost in a file: two for a batch-norm instead of four, and few digits.

In a written file the statistics of a batch-norm are part of its scale and shift:

    gamma (x - mean) / sqrt(var + eps) + beta  =  gamma' x / sqrt(1 + eps) + beta'

The file keeps all four names; mean is 0 and var is 1 there, which cost a few bytes each. The module keeps its own
statistics, for in training mode gamma means something else.

Where the budget counts bytes, vectors on which no set acts are `shortened` to 8 binary digits, as bfloat16 has them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = np.ndarray[Any, Any]
SHORT = (
    "biases and norms on which no set acts are written with 8 binary digits (a change of 0.4 % at most), because the "
    "budget counts bytes"
)
_DIGITS = 8
_ROUNDING = 2.0**-22  # of the terms of a float32 sum: so far may it be off
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


def shorten(module: nn.Module, keep: Collection[str] = ()) -> None:
    """Round the float32 vectors of a module to 8 significant binary digits, in place; of batch-norms the merged ones.

    A batch-norm gets the scale and shift from which `merged` makes the rounded ones; its statistics stay.
    Left as they are: what is in `keep` (a set acts on it) or frozen.
    """
    import torch

    own = {n: p for n, p in module.named_parameters() if _may_change(p) and n not in keep}
    with torch.no_grad():
        for prefix, m in module.named_modules():
            names = [f"{prefix}.{last}" if prefix else last for last in _NAMES[:2]]
            if _is_norm(m) and all(n in own for n in names):
                arrays = [t.double().numpy() for t in (m.weight, m.bias, m.running_mean, m.running_var)]
                for name, array in zip(names, _unmerge(arrays, m.eps), strict=True):
                    own.pop(name).copy_(torch.from_numpy(array))
        for p in own.values():
            p.copy_(torch.from_numpy(_short(p.double().numpy())))


def _may_change(p: Tensor) -> bool:
    import torch

    return p.dim() <= 1 and p.dtype == torch.float32 and p.requires_grad


def _is_norm(m: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(m, _BatchNorm) and m.affine and m.running_mean is not None


def _unmerge(arrays: list[Array], eps: float) -> tuple[Array, Array]:
    """The float32 gamma and beta whose merged vectors are the short neighbours of those of `arrays`."""
    scale, shift = _merge(arrays, eps)[:2]
    mean, var = arrays[2], arrays[3]
    spread = np.sqrt(var + eps)
    gamma = (_short(scale.astype(np.float64)) * spread / np.sqrt(1 + eps)).astype(np.float32)
    return gamma, (_short(shift.astype(np.float64)) + mean * (gamma / spread)).astype(np.float32)


def _short(a: Array) -> Array:
    """The nearest numbers of 8 significant binary digits."""
    mantissa, exponent = np.frexp(a)
    return np.asarray(np.ldexp(np.rint(mantissa * 2**_DIGITS) / 2**_DIGITS, exponent))


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
    """Scale, shift, mean 0, variance 1; in double, so that vectors which are merged already come out as they are.

    Short numbers come out short: gamma and beta, from which they are computed, are float32.
    """
    gamma, beta, mean, var = (a.astype(np.float64) for a in arrays)
    step = gamma / np.sqrt(var + eps)
    scale = _settled(step * np.sqrt(1 + eps), abs(step))
    shift = _settled(beta - mean * step, abs(beta) + abs(mean * step))
    return [a.astype(np.float32) for a in (scale, shift, np.zeros_like(mean), np.ones_like(var))]


def _settled(a: Array, size: Array) -> Array:
    """`a`, or its short neighbour where rounding terms of that size could have made the difference."""
    near = _short(a)
    return np.where(abs(near - a) <= _ROUNDING * size, near, a)


def _plain(mean: Array, var: Array) -> bool:
    return not mean.any() and bool((var == 1).all())
