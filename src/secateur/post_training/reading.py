"""A float32 ONNX file as a graph to work on: opset 13 or later, constants folded, batch norms in the layers before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from secateur import formats
from secateur.engine.session import read_model
from secateur.errors import FormatError, UnsupportedError, UsageError, first_line
from secateur.export import _simplify
from secateur.export._canonical import Canonical, attributes, put, rename, take_apart
from secateur.limits import quoted, shortened
from secateur.native import _native

OPSET = 13  # the first whose DequantizeLinear has an axis
_INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LSTM", "GRU", "RNN")  # operators with weights
_LIMIT = 2**31 - 1  # bytes of a protocol buffer


def read(path_or_bytes: str | os.PathLike[str] | bytes) -> tuple[str, Any]:
    """What to call the model in messages, and its ModelProto with all weights inside.

    Raises:
        UsageError: no such file, a file of another kind, or a model that computes in integers already.
        FormatError: not an ONNX model. UnsupportedError: subgraphs, or operators of other domains than ONNX's own.
    """
    path = Path(path_or_bytes) if isinstance(path_or_bytes, str | os.PathLike) else None
    subject, data = str(path or "model"), read_model(path_or_bytes)
    data = formats.unpack(data) if _native.is_sct(data) else data
    try:
        model = onnx.load_model_from_string(data)
    except Exception as e:  # protobuf's own error
        raise FormatError(f"{subject}: is no ONNX model ({e}); give a float32 .onnx file") from None
    if not model.graph.node:
        raise FormatError(f"{subject}: is no ONNX model, or has no nodes; give a float32 .onnx file")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_plain(model, subject)
    try:
        if path is not None:
            onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        raise UsageError(f"{subject}: its weights lie in another file that cannot be read ({first_line(e)})") from None
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        raise UsageError(f"{subject}: its weights lie in another file; give the path of the .onnx file, not its bytes")
    if model.ByteSize() > _LIMIT:
        raise UnsupportedError(f"{subject}: {model.ByteSize()} bytes; at most {_LIMIT} are read")
    return subject, model


def _check_plain(model: Any, subject: str) -> None:
    for n in model.graph.node:
        name = quoted(n.name or (n.output[0] if n.output else ""))
        if n.op_type in _INTEGERS:
            raise UsageError(
                f"{subject}: node {name} ({n.op_type}) computes in integers already; give the float32 model it was "
                "made from"
            )
        if n.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"{subject}: node {name} ({n.op_type}) is of the domain {quoted(n.domain)}; plain ONNX operators are "
                "needed: give the file as it was exported, before a runtime optimised it"
            )
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in n.attribute):
            raise UnsupportedError(
                f"{subject}: node {name} ({n.op_type}) holds a subgraph; a graph without branches and loops is needed"
            )
    if model.graph.sparse_initializer:
        raise UnsupportedError(f"{subject}: it stores sparse tensors; write its weights as plain initializers")


def simplified(model: Any, subject: str) -> Canonical:
    """The shortest plain form of the graph, its layers under the names of the file.

    Raises:
        UnsupportedError: of an opset that ONNX's converter does not lift to 13, or a graph that ONNX finds at fault.
    """
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]  # before IR 4 initializers had to be inputs too
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    try:
        if any(o.domain in ("", "ai.onnx") and o.version < OPSET for o in model.opset_import):
            model = version_converter.convert_version(model, OPSET)
        _constants_as_initializers(model.graph)
        g = take_apart(onnx.shape_inference.infer_shapes(model, data_prop=True), frozenset())
        names = {n.output[0]: n.name for n in g.nodes if n.output and n.name}
        _simplify.simplify(g, fold_norms=True)
        _gemms(g)
        _plain_pools(g)
        _simplify.simplify(g, fold_norms=True)
    except Exception as e:  # ONNX's own errors and those of its C++ half have no common class but this
        raise UnsupportedError(
            f"{subject}: ONNX's tools fail on this graph ({shortened(first_line(e))}); export it anew with opset 17"
        ) from e
    _name_layers(g, names)
    _own_biases(g)
    return g


def _own_biases(g: Canonical) -> None:
    """Equal constants became one; a bias that is to change belongs to one layer."""
    used: set[str] = set()
    for n in g.nodes:
        at = {"Conv": [2], "Gemm": [2], "Add": [0, 1]}.get(n.op_type, [])
        for i in (i for i in at if i < len(n.input) and n.input[i] in g.constants):
            name = n.input[i]
            while n.input[i] in used:
                n.input[i] += "_"
            if n.input[i] != name:
                put(g, n.input[i], g.constants[name])
            used.add(n.input[i])


def _name_layers(g: Canonical, names: Mapping[str, str]) -> None:
    """Nodes that passes made get the names that the file has; layers without any, that of the module or the weight."""
    for n in g.nodes:
        n.name = n.name or names.get(n.output[0], "")
    taken = {n.name for n in g.nodes if n.name}
    for n in g.nodes:
        if n.op_type not in LAYERS or n.name:
            continue
        wanted = n.input[1].removesuffix(".weight")
        while wanted in taken:
            wanted += "_"
        taken.add(wanted)
        n.name = wanted


def _constants_as_initializers(graph: Any) -> None:
    """Constant nodes hold weights in some exporters' files; folding alone would leave large ones where they are."""
    kept = []
    for n in graph.node:
        if n.op_type == "Constant" and len(n.attribute) == 1 and n.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(n.attribute[0].t)
            tensor.name = n.output[0]
        else:
            kept.append(n)
    del graph.node[:]
    graph.node.extend(kept)


def _plain_pools(g: Canonical) -> None:
    """Without padding there is none to count: torch writes that it counts it."""
    for n in g.nodes:
        given = attributes(n)
        padded = any(given.get("pads", ())) or given.get("ceil_mode", 0) or given.get("auto_pad", b"")[:4] == b"SAME"
        if n.op_type == "AveragePool" and not padded:
            kept = [a for a in n.attribute if a.name != "count_include_pad"]
            del n.attribute[:]
            n.attribute.extend(kept)


def _gemms(g: Canonical) -> None:
    """MatMul of rows [n, features] with constant weights, and the Add of a bias behind it, is one Gemm."""
    for n in list(g.nodes):
        weight = g.constants.get(n.input[1]) if n.op_type == "MatMul" else None
        if weight is None or weight.ndim != 2 or len(g.shapes.get(n.input[0], ())) != 2:
            continue
        bias = bias_behind(g, n, weight.shape[1])
        made = helper.make_node("Gemm", list(n.input), list(n.output), n.name)
        g.nodes[g.nodes.index(n)] = made
        if bias is not None:
            add, name = bias
            made.input.append(name)
            g.nodes.remove(add)
            rename(g, made.output[0], add.output[0])


def bias_behind(g: Canonical, node: Any, n: int) -> tuple[Any, str] | None:
    """The Add behind a MatMul and the name of the n numbers it adds; None where that is no bias of its own."""
    readers = g.readers(node.output[0])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in g.output_names:
        return None
    name = next((i for i in readers[0].input if i != node.output[0]), "")
    value = g.constants.get(name)
    if value is None or value.size != n or value.shape[-1:] != (n,):
        return None
    if value.ndim != 1:
        flat = f"{name}//flat"
        put(g, flat, value.reshape(-1))
        for i, given in enumerate(readers[0].input):
            readers[0].input[i] = flat if given == name else given
        name = flat
    return readers[0], name


def assembled(g: Canonical, more_outputs: list[str] | None = None) -> bytes:
    """The file of a graph; `more_outputs` are float32 values that a run gives as well."""
    order = dict.fromkeys(i for n in g.nodes for i in n.input if i in g.constants)
    order.update(dict.fromkeys(k for k in g.constants if k in g.output_names))
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in more_outputs or []]
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(g.constants[k]).reshape(g.constants[k].shape), k) for k in order
    ]
    graph = helper.make_graph(g.nodes, "main", g.inputs, [*g.outputs, *more], tensors)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=8 if g.opset < 19 else 10
    )
    made.producer_name = made.producer_version = ""
    data: bytes = made.SerializeToString(deterministic=True)
    return data
