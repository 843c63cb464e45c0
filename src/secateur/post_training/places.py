"""Layers that can run in integers, and the values that must lie on 8-bit grids for that.

The rules are those of `graph/activations.py`, on ONNX's operators: backwards from the inputs of layers to whatever
sums, pools, joins and functions lie in between. A layer, or a sum, and the Relu behind it are rounded once; what only
moves values, and what joins them, keeps one scale; means, sums and functions have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.export._canonical import Canonical, attributes
from secateur.post_training.reading import LAYERS, bias_behind

_MOVES = {
    "MaxPool", "GlobalMaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Identity",
    "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
_MEANS = {"AveragePool", "GlobalAveragePool"}
# Of one value and constants: a table of 256 bytes in the engine (engine/graph/passes/quant_tables.cc).
_ELEMENTWISE = {
    "Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max",
    "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub",
    "Tanh", "ThresholdedRelu",
}  # fmt: skip
_MOST_NODES = 16  # of such a function
_POSITIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softplus", "Abs"}


@dataclass(frozen=True)
class Layer:
    """A node with weights.

    Attributes:
        node: Conv, Gemm or MatMul; others have `why_not`.
        result: the value that holds its result, bias added.
        bias: the constant that is added per output; empty where there is none.
        names: what a pattern may match: of the node, of its weight and bias, of the module that these belong to.
        axis: of the outputs in the weight.
        why_not: why it cannot run in integers; empty where it can.
    """

    node: Any
    result: str
    bias: str
    names: tuple[str, ...]
    axis: int = 0
    why_not: str = ""

    @property
    def name(self) -> str:
        """What reports call it: the node's name, or its weight's."""
        return self.names[0]

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return str(self.node.input[1])


@dataclass(frozen=True)
class Grid:
    """Values that share one scale. `unsigned`: codes 0..255, for values never negative; else -128..127."""

    values: tuple[str, ...]
    unsigned: bool


def layers(g: Canonical) -> list[Layer]:
    """Every node with weights, in the order of the graph."""
    return [_layer(g, n) for n in g.nodes if n.op_type in LAYERS and any(i in g.constants for i in n.input[1:])]


def _layer(g: Canonical, n: Any) -> Layer:
    weight = g.constants.get(n.input[1])
    axis = 0 if n.op_type == "Conv" or attributes(n).get("transB", 0) else 1
    result, bias = n.output[0], n.input[2] if n.op_type in ("Conv", "Gemm") and len(n.input) > 2 else ""
    added = None
    if n.op_type == "MatMul" and weight is not None and weight.ndim == 2:
        added = bias_behind(g, n, weight.shape[1])
    if added is not None:
        result, bias = added[0].output[0], added[1]
    own = [n.name, *([added[0].name] if added else []), n.input[1], bias]
    modules = [name.rpartition(".")[0] for name in (n.input[1], bias) if name.endswith((".weight", ".bias"))]
    names = tuple(dict.fromkeys(name for name in [*own, *modules] if name))
    return Layer(n, result, bias, names, axis, _why_not(g, n, bias))


def _why_not(g: Canonical, n: Any, bias: str) -> str:
    if n.op_type not in ("Conv", "Gemm", "MatMul"):
        return f"there is no integer kernel for {n.op_type}"
    weight, given = g.constants.get(n.input[1]), attributes(n)
    if weight is None:
        return "its second operand is no constant"
    if weight.dtype != "float32":
        return f"its weights are {weight.dtype}"
    if weight.ndim not in ((3, 4) if n.op_type == "Conv" else (2,)):
        return f"weights of rank {weight.ndim}"
    if n.op_type == "Gemm" and (given.get("transA", 0) or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1):
        return "a Gemm with transA, alpha or beta"
    outputs = weight.shape[0 if n.op_type == "Conv" or given.get("transB", 0) else 1]
    if bias and (bias not in g.constants or g.constants[bias].size != outputs):
        return "its bias is not one number per output"
    return ""


def grids(g: Canonical, chosen: Sequence[Layer]) -> tuple[Grid, ...]:
    """The grids that let the layers `chosen` run in integers, in the order of the graph."""
    walk = _Walk(g, chosen)
    for layer in chosen:
        walk.need(layer.node.input[0])
    return walk.grids()


class _Walk:
    """Backwards from the inputs of layers to all values that must lie on a grid."""

    def __init__(self, g: Canonical, chosen: Sequence[Layer]) -> None:
        self.g = g
        self.made = {o: n for n in g.nodes for o in n.output[:1]}
        self.results = {layer.result for layer in chosen}
        known = [*(i.name for i in g.inputs), *(o for n in g.nodes for o in n.output)]
        self.order = {name: i for i, name in enumerate(known)}
        self.readers: dict[str, int] = dict.fromkeys(g.output_names, 1)
        for n in g.nodes:
            for name in n.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        self.seen: dict[str, None] = {}
        self.parent: dict[str, str] = {}

    def need(self, value: str) -> None:
        """`value` must lie on a grid."""
        left = [value]
        while left:
            value = left.pop()
            if value in self.seen:
                continue
            self.seen[value] = None
            kind = self.kind(value)
            for source in self.behind(value, kind):
                left.append(source)
                if kind in ("move", "join"):
                    self.union(value, source)

    def behind(self, value: str, kind: str) -> list[str]:
        """The values that must lie on a grid because `value` does."""
        if kind == "clamp":
            source = str(self.made[value].input[0])
            made = self.kind(source)
            if made == "other":
                return []
            if made in ("layer", "sum") and self.readers[source] == 1:
                return self.behind(source, made)  # rounded once, after the clamp
            return [source]
        if kind in ("layer", "other"):
            return []
        return self.sources(value, kind)

    def sources(self, value: str, kind: str) -> list[str]:
        """What a value is made of, constants left out."""
        if kind == "function":
            source = self.argument(value)
            return [] if source is None or self.kind(source) == "other" else [source]
        node = self.made[value]
        return list(node.input) if kind in ("join", "sum") else [node.input[0]]

    def kind(self, value: str) -> str:
        """What the node that makes a value does to a grid; `other` where it is not known to keep bytes."""
        node = self.made.get(value)
        if node is None:
            return "other"
        if value in self.results:
            return "layer"
        op = node.op_type
        if op in _MEANS:
            return "mean"
        if op in _MOVES or (op == "Pad" and self._pads_zeros(node)):
            return "move"
        if op == "ReduceMean":
            return "mean" if self._over_image(node) else "other"
        if op == "Relu" or (op == "Clip" and all(i in self.g.constants for i in node.input[1:] if i)):
            return "clamp"
        constants = [i for i in node.input if i in self.g.constants]
        if op == "Concat":
            return "other" if constants else "join"
        if op == "Add" and not constants and node.input[0] != node.input[1]:
            a, b = (self.g.shapes.get(i) for i in node.input)
            return "sum" if a is not None and a == b else "other"
        return "function" if op in _ELEMENTWISE and self.argument(value) is not None else "other"

    def _pads_zeros(self, node: Any) -> bool:
        value = self.g.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else 0
        return attributes(node).get("mode", b"constant") == b"constant" and value is not None and not np.any(value)

    def _over_image(self, node: Any) -> bool:
        rank = len(self.g.shapes.get(node.input[0], ()))
        axes = attributes(node).get("axes", ())
        if len(node.input) > 1:
            axes = self.g.constants[node.input[1]].reshape(-1).tolist() if node.input[1] in self.g.constants else ()
        return rank in (3, 4) and sorted(a % rank for a in axes) == list(range(2, rank))

    def argument(self, value: str) -> str | None:
        """The value that this one is an elementwise function of, by few nodes and single numbers.

        The farthest that nothing else reads on the way to it; not beyond a clamp, which costs nothing in a layer.
        """
        front, inside = {value: 0}, 0
        found = None
        while inside < _MOST_NODES:
            last = max(front, key=self.order.__getitem__)
            node = self.made.get(last)
            if node is None or node.op_type not in _ELEMENTWISE or last in self.results:
                return found
            alone = len(front) == 1 and inside > 0
            if alone and (front[last] < self.readers[last] or node.op_type in ("Relu", "Clip")):
                return found
            del front[last]
            for name in node.input:
                constant = self.g.constants.get(name)
                if constant is not None and constant.size != 1:
                    return found
                if name and constant is None:
                    front[name] = front.get(name, 0) + 1
            inside += 1
            if len(front) == 1:
                found = next(iter(front))
        return found

    def positive(self, value: str) -> bool:
        """Is the value never negative?"""
        node, kind = self.made.get(value), self.kind(value)
        if node is None:
            return False
        if node.op_type in _POSITIVE:
            return True
        if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in self.g.constants:
            return bool(self.g.constants[node.input[1]] >= 0)
        if kind in ("move", "mean", "sum", "join"):
            return all(self.positive(s) for s in self.sources(value, kind))
        return False

    def root(self, value: str) -> str:
        while value in self.parent:
            value = self.parent[value]
        return value

    def union(self, a: str, b: str) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=self.order.__getitem__)
        if first != second:
            self.parent[second] = first

    def grids(self) -> tuple[Grid, ...]:
        groups: dict[str, list[str]] = {}
        for value in sorted(self.seen, key=self.order.__getitem__):
            groups.setdefault(self.root(value), []).append(value)
        return tuple(Grid(tuple(v), all(self.positive(x) for x in v)) for v in groups.values())
