"""What of a graph is known before it runs: constants, shapes, and integers computed from shapes.

A size is a number or, for a free axis, text: equal text is equal size. Parameters are not folded into other constants:
the file holds them under their names, as they are or transposed, so that they can be found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from secateur.export._canonical import Array, Canonical, attributes, is_random, put, rename, sliced

_GROWTH = 256  # bytes by which a folded constant may be longer than what it is made of: a node or two are as long
_SMALL = 64  # elements of an integer tensor that may be a shape

Size = int | str | None


def infer_shapes(g: Canonical) -> None:
    """Element types and shapes of all values, as far as ONNX can tell; what is known already stays."""
    weights = {k: v for k, v in g.constants.items() if v.size > _SMALL or v.dtype.kind not in "iu"}
    heads = [*g.inputs, *(_info(k, g.types[k], list(v.shape)) for k, v in weights.items())]
    known = {o for n in g.nodes for o in n.output} & g.shapes.keys() & g.types.keys() - g.output_names
    graph = helper.make_graph(
        g.nodes,
        "shapes",
        heads,
        g.outputs,
        [onnx.numpy_helper.from_array(v, k) for k, v in g.constants.items() if k not in weights],
        value_info=[_info(k, g.types[k], g.shapes[k]) for k in sorted(known)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=8)
    for info in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info:
        tensor = info.type.tensor_type
        g.types.setdefault(info.name, tensor.elem_type)
        if tensor.HasField("shape") and info.name not in g.shapes:
            sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
            g.shapes[info.name] = ["" if str(s).startswith("unk__") else s for s in sizes]


def _info(name: str, kind: int, shape: list[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, [s or None if isinstance(s, str) else s for s in shape])


def fold_constants(g: Canonical) -> None:
    """Calls on constants become constants, unless they read a parameter or the file would grow."""
    kept = []
    for n in g.nodes:
        made = None if any(o in g.output_names for o in n.output) else _computed(g, n)
        if made is None:
            kept.append(n)
        else:
            for name, value in made.items():
                put(g, name, value)
    g.nodes = kept


def _computed(g: Canonical, n: Any) -> dict[str, Array] | None:
    """The constants that a node makes, None where it stays."""
    if n.op_type == "Shape" and n.input[0] in g.constants:
        return _evaluated(g, n)
    if (
        n.op_type == "CastLike"
        and n.input[0] in g.constants
        and g.types.get(n.input[1])
        and n.input[0] not in g.weights
    ):
        return {n.output[0]: g.constants[n.input[0]].astype(helper.tensor_dtype_to_np_dtype(g.types[n.input[1]]))}
    used = [i for i in n.input if i]
    if n.op_type == "Identity" or is_random(n) or any(i not in g.constants for i in used):
        return None
    if not g.weights.isdisjoint(used):
        return _turned(g, n)
    made = _evaluated(g, n)
    grown = sum(v.nbytes for v in made.values()) - sum(g.constants[i].nbytes for i in used)
    return made if grown <= _GROWTH else None


def _turned(g: Canonical, n: Any) -> dict[str, Array] | None:
    """A weight that is transposed is stored so, under its name, marked; None where the node stays.

    It does where something reads the weight as it is: nothing is stored twice.
    """
    name, made = n.input[0], f"{n.input[0]}.T"
    if n.op_type != "Transpose" or g.constants[name].ndim != 2 or attributes(n).get("perm", [1, 0]) != [1, 0]:
        return None
    if any(r is not n for r in g.readers(name)):
        return None
    rename(g, n.output[0], made)
    g.params |= {made}
    g.weights |= {made}
    return {made: np.ascontiguousarray(g.constants[name].T)}


def _evaluated(g: Canonical, n: Any) -> dict[str, Array]:
    from onnx.reference import ReferenceEvaluator

    if n.op_type == "GatherElements":  # the reference fails where an axis is longer than 32 and indices are several
        data, index = (g.constants[i] for i in n.input)
        axis = attributes(n).get("axis", 0) % data.ndim
        part = data[tuple(slice(None if k == axis else size) for k, size in enumerate(index.shape))]
        return {n.output[0]: np.take_along_axis(part, index, axis)}
    used = [i for i in n.input if i]
    typed = [_info(i, g.types[i], []) for i in dict.fromkeys(used)]
    for t in typed:
        t.type.tensor_type.ClearField("shape")
    names = [o for o in n.output if o]
    single = helper.make_graph([n], "one", typed, [helper.make_empty_tensor_value_info(o) for o in names])
    model = helper.make_model(single, opset_imports=[helper.make_opsetid("", g.opset)])
    results = ReferenceEvaluator(model).run(None, {i: g.constants[i] for i in used})
    return {o: np.asarray(v) for o, v in zip(names, results, strict=True)}


def fold_sizes(g: Canonical) -> None:
    """Integers computed from shapes become constants where all are known; shapes of reshapes follow, as far as known.

    Follows sizes through Shape, Gather, Slice, Concat, casts and changes of rank.
    """
    found: dict[str, list[Size]] = {k: [v] for k, v in g.sizes.items()}
    kept = []
    for n in g.nodes:
        sizes = _sizes(g, n, found)
        if sizes is None or len(n.output) != 1:
            kept.append(n)
            continue
        found[n.output[0]] = sizes
        whole = [s for s in sizes if isinstance(s, int)]
        rank = len(g.shapes.get(n.output[0], [0]))
        dtype = helper.tensor_dtype_to_np_dtype(g.types.get(n.output[0], TensorProto.INT64))
        if len(whole) < len(sizes) or n.output[0] in g.output_names or rank > 1:
            kept.append(n)
        else:
            put(g, n.output[0], np.array(whole, dtype).reshape([-1] if rank else []))
    g.nodes = kept
    for n in g.nodes:
        if n.op_type == "Reshape" and n.output[0] not in g.shapes and n.input[1] in found:
            target = found[n.input[1]]
            if all(isinstance(s, str) or (isinstance(s, int) and s > 0) for s in target):
                g.shapes[n.output[0]] = [s for s in target if s is not None]


def _sizes(g: Canonical, n: Any, found: dict[str, list[Size]]) -> list[Size] | None:
    """Elements of the integer vector or scalar that a node makes; None where it makes something else."""

    def of(name: str) -> list[Size] | None:
        value = g.constants.get(name)
        if value is None:
            return found.get(name)
        return value.reshape(-1).tolist() if value.dtype.kind == "i" and value.size <= _SMALL else None

    def index(name: str) -> list[int] | None:
        value = g.constants.get(name)
        return value.reshape(-1).tolist() if value is not None else None

    given = attributes(n)
    if n.output[0] in g.sizes:
        return found[n.output[0]]
    if n.op_type == "Shape":
        shape = g.shapes.get(n.input[0])
        part = None if shape is None else shape[given.get("start", 0) : given.get("end", len(shape))]
        return None if part is None else [None if s == "" else s for s in part]
    source = of(n.input[0]) if n.input else None
    if source is None and n.op_type != "Concat":
        return None
    if n.op_type in ("Cast", "Identity") and g.types.get(n.output[0]) in (TensorProto.INT64, TensorProto.INT32):
        return source
    if n.op_type in ("Squeeze", "Unsqueeze", "Reshape") and len(g.shapes.get(n.output[0], [0, 0])) <= 1:
        return source
    if n.op_type == "Concat":
        parts = [of(i) for i in n.input]
        return None if None in parts else [s for p in parts if p is not None for s in p]
    if n.op_type == "Gather":
        picks = index(n.input[1])
        return None if picks is None or source is None else [source[p] for p in picks]
    if n.op_type == "Slice" and source is not None and all(i in g.constants for i in n.input[1:]):
        starts, ends, _, steps = sliced(n, g)
        return source[starts[0] : ends[0] : steps[0]] if len(starts) == 1 and steps[0] > 0 else None
    return None
