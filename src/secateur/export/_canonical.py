"""An ONNX graph taken apart and put together again: constants, names, codes. `_simplify` makes it short in between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnx.defs
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]


@dataclass
class Canonical:
    """A graph taken apart: nodes in order, constants by name, shapes where known (free axes as text).

    `params` are constants that keep their names. `weights` are those of them that are stored as the module has them,
    or transposed: what the network computes from them before use stays in the graph, for runtimes to do while loading.
    `sizes` are integer scalars that the trace knows.
    """

    nodes: list[Any]
    constants: dict[str, Array]
    inputs: list[Any]
    outputs: list[Any]
    shapes: dict[str, list[int | str]]
    types: dict[str, int]
    params: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    opset: int = 18
    sizes: dict[str, int | str] = field(default_factory=dict)

    @property
    def output_names(self) -> set[str]:
        """Names of the model's outputs."""
        return {o.name for o in self.outputs}

    def producer(self, name: str) -> Any | None:
        """The node that makes a value."""
        return next((n for n in self.nodes if name in n.output), None)

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a value."""
        return [n for n in self.nodes if name in n.input]


def take_apart(model: Any, params: frozenset[str]) -> Canonical:
    """From a ModelProto with inferred shapes."""
    graph = model.graph
    shapes: dict[str, list[int | str]] = {}
    types: dict[str, int] = {}
    for info in [*graph.input, *graph.output, *graph.value_info]:
        tensor = info.type.tensor_type
        types[info.name] = tensor.elem_type
        if tensor.HasField("shape"):
            shapes[info.name] = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for name, value in constants.items():
        shapes[name], types[name] = list(value.shape), helper.np_dtype_to_tensor_dtype(value.dtype)
    nodes, heads, ends = _copies(graph.node), _copies(graph.input), _copies(graph.output)
    taken = {i.name for i in graph.input} | set(constants)
    for i, end in enumerate(ends):
        if end.name in taken:  # an output that is an input, a constant or another output needs a node of its own
            nodes.append(helper.make_node("Identity", [end.name], [f"{end.name}//{i}"]))
            end.name = f"{end.name}//{i}"
            shapes[end.name], types[end.name] = shapes[nodes[-1].input[0]], types[nodes[-1].input[0]]
        taken.add(end.name)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return Canonical(nodes, constants, heads, ends, shapes, types, params, opset=int(opset))


def _copies(protos: Any) -> list[Any]:
    """The passes change nodes in place; the caller's model stays as it is."""
    made = []
    for p in protos:
        made.append(type(p)())
        made[-1].CopyFrom(p)
    return made


def attributes(node: Any) -> dict[str, Any]:
    """Attribute name -> Python value."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def is_random(node: Any) -> bool:
    """Does a call draw random numbers? Such a call is neither made once for two, nor ahead of the run."""
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def sliced(n: Any, g: Canonical) -> tuple[list[int], list[int], list[int], list[int]]:
    """Starts, ends, axes and steps of a Slice by constants."""
    parts = [g.constants[i].reshape(-1).tolist() for i in n.input[1:]]
    starts, ends = parts[0], parts[1]
    axes = parts[2] if len(parts) > 2 else list(range(len(starts)))
    steps = parts[3] if len(parts) > 3 else [1] * len(starts)
    return starts, ends, axes, steps


def put(g: Canonical, name: str, value: Array) -> None:
    g.constants[name] = value
    g.shapes[name], g.types[name] = list(value.shape), helper.np_dtype_to_tensor_dtype(value.dtype)


def rename(g: Canonical, old: str, new: str) -> None:
    for n in g.nodes:
        for names in (n.input, n.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    if old in g.shapes:
        g.shapes[new] = g.shapes.pop(old)
    if old in g.types:
        g.types[new] = g.types.pop(old)


def shorten_names(g: Canonical) -> None:
    """Values and constants of the code get the shortest free names; inputs, outputs and parameters keep theirs."""
    taken = {i.name for i in g.inputs} | g.output_names | set(g.params)
    outputs = (o for n in g.nodes for o in n.output if o and o not in g.output_names)
    old = [*(name for name in g.constants if name not in g.params), *outputs]
    # All at once: a new name may be another value's old one.
    new = {name: _free(taken) for name in dict.fromkeys(old)}
    g.constants = {new.get(k, k): v for k, v in g.constants.items()}
    for n in g.nodes:
        n.name, n.doc_string = "", ""
        del n.metadata_props[:]
        for names in (n.input, n.output):
            for i, name in enumerate(names):
                names[i] = new.get(name, name)
    used = Counter(i for n in g.nodes for i in n.input)
    for n in g.nodes:
        least = _least_outputs(n, g.opset)
        while len(n.output) > least and not used[n.output[-1]] and n.output[-1] not in g.output_names:
            del n.output[-1]


def _least_outputs(node: Any, opset: int) -> int:
    """How many outputs an operator must name, read or not (two of TopK); 1 for operators that ONNX does not define."""
    try:
        return max(1, int(onnx.defs.get_schema(node.op_type, opset, node.domain).min_output))
    except onnx.defs.SchemaError:
        return 1


def name_free_axis(g: Canonical, name: str) -> None:
    """The free first axis of inputs and outputs gets a name people know."""
    symbols = {d.dim_param for i in g.inputs for d in i.type.tensor_type.shape.dim[:1] if d.dim_param}
    for end in [*g.inputs, *g.outputs]:
        for d in end.type.tensor_type.shape.dim:
            if d.dim_param in symbols:
                d.dim_param = name if len(symbols) == 1 else d.dim_param


def _free(taken: set[str]) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz"
    for i in count():
        name, rest = digits[i % 26], i // 26
        while rest:
            rest -= 1
            name = digits[rest % 26] + name
            rest //= 26
        if name not in taken:
            taken.add(name)
            return name
    raise AssertionError("unreachable")


def quantise(g: Canonical, name: str, scale: Array) -> None:
    """A weight of uniform levels as int8 codes and DequantizeLinear; ValueError when the values are not on the grid.

    `scale`: one number, one for each index of axis 0, or an array that multiplies the codes along one axis.
    Weights that a MatMul reads stay as they are: ONNX Runtime (1.31 at least) fuses DequantizeLinear and MatMul into an
    operator that rounds the activations to 8 bits, 1 % of the output away from what the network computes.
    """
    behind = [r for n in g.readers(name) for r in (g.readers(n.output[0]) if n.op_type == "Transpose" else [n])]
    if any(n.op_type == "MatMul" for n in behind):
        return
    value = g.constants[name]
    per_row = scale.size > 1
    at = scale.shape.index(scale.size) if per_row and scale.ndim == value.ndim else 0
    spread = scale.reshape([-1 if a == at else 1 for a in range(value.ndim)] if per_row else ()).astype(np.float32)
    codes = np.rint(value.astype(np.float64) / np.where(spread != 0, spread, 1))
    if np.abs(codes).max(initial=0) > 127:
        raise ValueError(f"{name}: codes up to {np.abs(codes).max():g} do not fit into int8")
    stored = codes.astype(np.int8)
    back = stored.astype(np.float32) * spread
    if not np.array_equal(back, value):
        worst = float(np.abs(back - value).max())
        raise ValueError(f"{name}: values are up to {worst:.3g} off the grid of scale {scale.reshape(-1)[0]:.6g}")
    dense, scale_name = f"{name}//dense", f"{name}_scale"
    while scale_name in g.constants:
        scale_name += "_"
    rename(g, name, dense)
    g.constants[name] = stored
    g.constants[scale_name] = spread.reshape(-1 if per_row else ())
    g.params |= {name, scale_name}
    first = next(i for i, n in enumerate(g.nodes) if dense in n.input)
    axis = {"axis": at} if per_row else {}
    g.nodes.insert(first, helper.make_node("DequantizeLinear", [name, scale_name], [dense], **axis))


def dequantise(g: Canonical) -> None:
    """DequantizeLinear of constants becomes the constant it computes, under the codes' name: undoes `quantise`."""
    for n in [n for n in g.nodes if n.op_type == "DequantizeLinear"]:
        if len(n.input) != 2 or any(i not in g.constants for i in n.input) or len(g.readers(n.input[0])) > 1:
            continue
        codes, scale = (g.constants[i] for i in n.input)
        if scale.ndim:
            axis = attributes(n).get("axis", 1)
            scale = scale.reshape([-1 if i == axis else 1 for i in range(codes.ndim)])
        g.nodes.remove(n)
        rename(g, n.output[0], n.input[0])
        g.constants[n.input[0]] = codes.astype(np.float32) * scale


def assemble(g: Canonical, ir_version: int = 8) -> Any:
    """The ModelProto. Initializers in the order of use, so that the file is a function of the network alone."""
    order = dict.fromkeys(i for n in g.nodes for i in n.input if i in g.constants)
    order.update(dict.fromkeys(k for k in g.constants if k in g.output_names))
    graph = helper.make_graph(
        g.nodes,
        "main",
        [_plain(i) for i in g.inputs],
        [_plain(o) for o in g.outputs],
        [numpy_helper.from_array(np.ascontiguousarray(g.constants[k]).reshape(g.constants[k].shape), k) for k in order],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=ir_version)
    model.producer_name = model.producer_version = ""
    return model


def _plain(info: Any) -> Any:
    tensor = info.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
    return helper.make_tensor_value_info(info.name, tensor.elem_type, shape)
