"""Layers in two in an exported graph: what a network with split layers would be written as, without an export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.graph import factors

if TYPE_CHECKING:
    from torch import nn

_LAYERS = ("Conv", "Gemm", "MatMul")


def split(graph: Any, module: nn.Module) -> None:
    """Split the nodes of an ONNX graph as the layers of `module` are, in place; values and shapes are not set.

    Args:
        graph: of the network as it was before; every layer's node reads an initializer of its weight's name.
    """
    names = {k for k, _ in module.named_parameters()}
    for tensor in list(graph.initializer):
        name = tensor.name.removesuffix(".T")
        stored = factors.names_of(name, names)
        if name in names or not stored or not name.endswith("weight"):
            continue
        turned = tensor.name[len(name) :]
        weights = [f"{n}{turned}" for n in stored]
        for node in [n for n in graph.node if n.op_type in _LAYERS and tensor.name in n.input]:
            _split(graph, node, list(node.input).index(tensor.name), weights)
        graph.initializer.remove(tensor)
        for weight in weights:
            graph.initializer.add().name = weight
    for tensor in graph.initializer:
        moved = factors.names_of(tensor.name, names)
        if tensor.name not in names and len(moved) == 1:
            for node in graph.node:
                for i, given in enumerate(node.input):
                    node.input[i] = moved[0] if given == tensor.name else given
            tensor.name = moved[0]


def _split(graph: Any, node: Any, at: int, weights: list[str]) -> None:
    """New nodes in front of `node`, which becomes the last of the chain."""
    import onnx

    for i, weight in enumerate(weights[:-1]):
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.name = f"{node.name}/{i}" if node.name else ""
        made.output[0] = f"{node.output[0]}/{i}"
        made.input[at] = weight
        if at == 1 and len(made.input) > 2:
            del made.input[2:]  # the bias is the last one's
        graph.node.insert(list(graph.node).index(node), made)
        node.input[1 - at] = made.output[0]
    node.input[at] = weights[-1]
    if node.op_type == "Conv":
        del node.attribute[:]  # of 1x1, as the weight says
