"""A net's own graph with other weights: random ones at a density and pattern."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # the weight's axis; Gemm's with transB is 0
_TOP = 127  # of a code


@dataclass(frozen=True)
class Layer:
    """One node with a constant weight.

    Attributes:
        name: the parameter's. constant: the initializer's.
        node: its number in the file.
        outputs, inputs: axes of the weight.
    """

    name: str
    constant: str
    node: int
    op: str
    shape: tuple[int, ...]
    outputs: int
    inputs: int

    @property
    def n(self) -> int:
        """Weights."""
        return int(np.prod(self.shape))


def parsed(model: bytes) -> Any:
    """The file as onnx reads it."""
    import onnx

    return onnx.load_model_from_string(model)


def layers(net: Any) -> list[Layer]:
    """The nodes of a parsed file that multiply by a constant of two or more axes, quantized ones too."""
    graph, found = net.graph, []
    constants = {t.name: tuple(t.dims) for t in graph.initializer}
    behind = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    for i, node in enumerate(graph.node):
        if node.op_type not in _OUTPUTS or len(node.input) < 2:
            continue
        constant = behind.get(node.input[1], node.input[1])
        shape = constants.get(constant, ())
        if len(shape) < 2 or (node.op_type == "MatMul" and len(shape) != 2):
            continue
        ints = {a.name: a.i for a in node.attribute}
        outputs = 0 if ints.get("transB") else _OUTPUTS[node.op_type]
        name = constant if constant == node.input[1] else constant.removesuffix("_q").removesuffix("_quantized")
        found.append(Layer(name.removesuffix(".T"), constant, i, node.op_type, shape, outputs, 1 - outputs))
    return found


def pruned(net: Any, pattern: str, density: float | Mapping[str, float], seed: int = 0) -> bytes:
    """The file with random weights, of which about the share `density` is not zero, in each layer of `layers`.

    Normal ones: floats at the scale at which activations neither vanish nor explode, integers as codes of the largest.

    Args:
        pattern: `any`; `RxC`: blocks of outputs x inputs at one tap; `:M`: as many in each group of M inputs.
        density: of all layers, or by name.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(net)
    rng = np.random.default_rng(seed)
    tensors = {t.name: t for t in copy.graph.initializer}
    for layer in layers(copy):
        tensor = tensors[layer.constant]
        before = numpy_helper.to_array(tensor)
        moved = (layer.shape[layer.outputs], layer.shape[layer.inputs], *layer.shape[2:])
        share = density if isinstance(density, float) else density[layer.name]
        kept = _mask(moved, pattern, share, rng)
        if layer.outputs == 1:
            kept = np.swapaxes(kept, 0, 1)
        values = np.where(kept, _values(layer, before.dtype, share, rng), 0).astype(before.dtype)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), layer.constant))
    return bytes(copy.SerializeToString())


def _values(layer: Layer, dtype: np.dtype[Any], density: float, rng: np.random.Generator) -> Array:
    normal: Array = rng.standard_normal(layer.shape)
    if dtype.kind in "iu":
        rest = tuple(a for a in range(normal.ndim) if a != layer.outputs)
        codes = np.rint(normal * (_TOP / np.abs(normal).max(axis=rest, keepdims=True)))
        return np.where(codes == 0, 1, codes)
    fan_in = layer.n / layer.shape[layer.outputs]
    scaled: Array = normal * np.sqrt(2 / fan_in / density)
    return scaled


def _mask(shape: tuple[int, ...], pattern: str, density: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Bool of `shape`, [outputs, inputs, taps ...]."""
    if group := re.fullmatch(r":(\d+)", pattern):
        m = int(group[1])
        score = rng.random((shape[0], -(-shape[1] // m), m, *shape[2:]))
        kept = np.argsort(np.argsort(score, axis=2), axis=2) < round(density * m)
        return kept.reshape(shape[0], -1, *shape[2:])[:, : shape[1]]
    block = re.fullmatch(r"(\d+)x(\d+)", pattern)
    rows, cols = (int(block[1]), int(block[2])) if block else (1, 1)
    n = (-(-shape[0] // rows), -(-shape[1] // cols), *shape[2:])
    score = rng.random(n).ravel()
    kept = np.zeros(score.size, bool)
    kept[np.argsort(score)[: max(round(density * score.size), 1)]] = True
    whole = kept.reshape(n).repeat(rows, axis=0).repeat(cols, axis=1)
    return whole[: shape[0], : shape[1]]
