"""A net's own graph with other weights: random ones at a density and pattern; or its layers side by side, narrower."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # the weight's axis; Gemm's with transB is 0
_ALONG = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Gelu", "Elu")


@dataclass(frozen=True)
class Layer:
    """One node with a constant weight.

    Attributes:
        name: the parameter's. constant: the initializer's.
        node: its number in the file.
        outputs, inputs: axes of the weight.
        groups: of a convolution.
        after: number of the activation that follows and nothing else reads, or None.
    """

    name: str
    constant: str
    node: int
    op: str
    shape: tuple[int, ...]
    outputs: int
    inputs: int
    groups: int = 1
    after: int | None = None

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
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(i)
    for i, node in enumerate(graph.node):
        if node.op_type not in _OUTPUTS or len(node.input) < 2:
            continue
        constant = behind.get(node.input[1], node.input[1])
        shape = constants.get(constant, ())
        if len(shape) < 2 or (node.op_type == "MatMul" and len(shape) != 2):
            continue
        ints = {a.name: a.i for a in node.attribute}
        outputs = 0 if ints.get("transB") else _OUTPUTS[node.op_type]
        nexts = readers.get(node.output[0], [])
        if len(nexts) == 1 and graph.node[nexts[0]].op_type == "BatchNormalization":  # folded into the layer
            nexts = readers.get(graph.node[nexts[0]].output[0], [])
        after = nexts[0] if len(nexts) == 1 and graph.node[nexts[0]].op_type in _ALONG else None
        name = constant.removeprefix("ConvBnFusion_W_").removesuffix("_quantized").removesuffix(".T")
        groups = int(ints.get("group", 1)) or 1
        found.append(Layer(name, constant, i, node.op_type, shape, outputs, 1 - outputs, groups, after))
    return found


def pruned(net: Any, pattern: str, density: float, seed: int = 0) -> bytes:
    """The file with random weights, of which about the share `density` is not zero, in each layer of `layers`.

    Floats are drawn at the scale at which activations neither vanish nor explode; integers from all codes.

    Args:
        pattern: `any`; `RxC`: blocks of outputs x inputs at one tap; `:M`: as many in each group of M inputs.
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
        kept = _mask(moved, pattern, density, rng)
        if layer.outputs == 1:
            kept = np.swapaxes(kept, 0, 1)
        values = np.where(kept, _values(layer, before.dtype, density, rng), 0).astype(before.dtype)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), layer.constant))
    return bytes(copy.SerializeToString())


def _values(layer: Layer, dtype: np.dtype[Any], density: float, rng: np.random.Generator) -> Array:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -127), info.max, layer.shape, endpoint=True)
    fan_in = layer.n / layer.shape[layer.outputs]
    scaled: Array = rng.standard_normal(layer.shape) * np.sqrt(2 / fan_in / density)
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


def side_by_side(net: Any, inputs: Mapping[str, tuple[int, ...]], share: float) -> tuple[bytes, dict[str, Layer]]:
    """The layers with their activations, dense, each with an input of its own, at a share of outputs and inputs.

    Args:
        inputs: by name of the layer, the shape of what it reads at full width.
    Returns:
        The file, and the layers by the names of their nodes.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights, values, outs = np.random.default_rng(0), [], [], [], []
    named: dict[str, Layer] = {}
    for k, layer in enumerate(x for x in layers(net) if x.name in inputs):
        node, (shape, groups, n_in) = net.graph.node[layer.node], _narrowed(layer, share)
        at = list(inputs[layer.name])
        at[-1 if layer.op in ("Gemm", "MatMul") else 1] = n_in
        w = (rng.standard_normal(shape) * np.sqrt(2 * shape[layer.outputs] / np.prod(shape))).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{k}"))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in ("group", "alpha")}
        if layer.op.startswith("Conv"):
            attributes["group"] = groups
        read = [f"x{k}", f"w{k}"]
        if layer.op != "MatMul":
            n_out = shape[layer.outputs] * (groups if layer.op == "ConvTranspose" else 1)
            weights.append(numpy_helper.from_array(np.full(n_out, 0.1, np.float32), f"b{k}"))
            read.append(f"b{k}")
        nodes.append(helper.make_node(layer.op, read, [f"y{k}"], name=f"layer{k}", **attributes))
        outs.append(f"y{k}")
        if layer.after is not None and len((after := net.graph.node[layer.after]).input) == 1:
            follow = {a.name: helper.get_attribute_value(a) for a in after.attribute}
            nodes.append(helper.make_node(after.op_type, [f"y{k}"], [f"z{k}"], name=f"after{k}", **follow))
            outs[-1] = f"z{k}"
        values.append(helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, at))
        named[f"layer{k}"] = layer
    made = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outs]
    graph = helper.make_graph(nodes, "layers", values, made, weights)
    file = helper.make_model(graph, opset_imports=list(net.opset_import), ir_version=net.ir_version)
    return bytes(file.SerializeToString()), named


def _narrowed(layer: Layer, share: float) -> tuple[tuple[int, ...], int, int]:
    """Shape of the weight, groups and number of inputs at a share of the channels; of groups as many fewer."""

    def part(n: int) -> int:
        return max(round(share * n), 1)

    shape = list(layer.shape)
    if layer.groups > 1:
        groups = part(layer.groups)
        shape[0] = shape[0] // layer.groups * groups
        n_in = shape[0] if layer.op == "ConvTranspose" else layer.shape[1] * groups
        return tuple(shape), groups, n_in
    shape[0], shape[1] = part(shape[0]), part(shape[1])
    return tuple(shape), 1, shape[layer.inputs]
