"""The shortest plain form of an ONNX graph: same function, same parameter names, nothing that the file can do without.

Every pass keeps the function exactly (but for the sign of a zero), except `fold_norms`, which rounds and is off unless
asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from secateur.export._canonical import Canonical, attributes, is_random, put, rename, sliced
from secateur.export._fold import fold_constants, fold_sizes, infer_shapes

_LAST = 2**31 - 1  # slices to the end come as INT64_MAX; anything this large is the end


def simplify(g: Canonical, *, fold_norms: bool = False) -> None:
    """All passes, until nothing changes."""
    _share_weights_of_linear(g)
    while True:
        before = [n.SerializeToString() for n in g.nodes]
        infer_shapes(g)
        fold_sizes(g)
        _share_equal_constants(g)
        _share_equal_nodes(g)
        fold_constants(g)
        _drop_identities(g)
        _constant_reshapes(g)
        _plain_splits(g)
        _merge_slices(g)
        _global_pools(g)
        _drop_zero_biases(g)
        if fold_norms:
            _fold_norms(g)
        _drop_unused(g)
        _drop_defaults(g)
        if [n.SerializeToString() for n in g.nodes] == before:
            break
    _share_equal_constants(g)


def _share_weights_of_linear(g: Canonical) -> None:
    """MatMul(x, Transpose(w)) on matrices -> Gemm(x, w, transB=1): the weight keeps its name and layout."""
    for i, n in enumerate(g.nodes):
        if n.op_type != "MatMul" or len(g.shapes.get(n.input[0], ())) != 2:
            continue
        t = g.producer(n.input[1])
        if (
            t is not None
            and t.op_type == "Transpose"
            and t.input[0] in g.constants
            and g.constants[t.input[0]].ndim == 2
        ):
            g.nodes[i] = helper.make_node("Gemm", [n.input[0], t.input[0]], list(n.output), transB=1)


def _share_equal_nodes(g: Canonical) -> None:
    """The same call on the same values is made once: loops that a trace unrolled repeat themselves."""
    seen: dict[bytes, Any] = {}
    for n in list(g.nodes):
        if is_random(n):
            continue
        bare = type(n)()
        bare.CopyFrom(n)
        del bare.output[:], bare.metadata_props[:]
        bare.name = bare.doc_string = ""
        first = seen.setdefault(bare.SerializeToString(deterministic=True), n)
        if first is n or len(first.output) != len(n.output) or g.output_names & set(n.output):
            continue
        if any(old and not new for old, new in zip(n.output, first.output, strict=True)):
            continue
        g.nodes.remove(n)
        for old, new in zip(n.output, first.output, strict=True):
            if old:
                rename(g, old, new)


def _is_identity(g: Canonical, n: Any) -> bool:
    shape = g.shapes.get(n.input[0]) if n.input else None
    out = g.shapes.get(n.output[0])
    if n.op_type == "Identity":
        return True
    if n.op_type == "Dropout":
        return len(n.output) == 1 or not any(g.readers(o) for o in n.output[1:])
    if n.op_type == "Cast":
        return g.types.get(n.input[0]) == attributes(n).get("to")
    if n.op_type == "CastLike":
        return g.types.get(n.input[0]) is not None and g.types.get(n.input[0]) == g.types.get(n.input[1])
    if n.op_type in ("Reshape", "Flatten", "Expand", "Squeeze", "Unsqueeze"):
        # At most one unnamed free axis, else equal text could mean different sizes.
        return shape is not None and shape == out and sum(s == "" for s in shape) == 0
    if n.op_type == "Concat":
        return len(n.input) == 1
    if n.op_type in ("Mul", "Div", "Add", "Sub"):
        neutral = g.constants.get(n.input[1])
        wanted = 1 if n.op_type in ("Mul", "Div") else 0
        return neutral is not None and neutral.ndim == 0 and neutral == wanted and n.input[1] not in g.params
    if n.op_type == "Transpose":
        perm = attributes(n).get("perm")
        return perm is not None and list(perm) == sorted(perm)
    if n.op_type == "Pad":
        pads = g.constants.get(n.input[1])
        return pads is not None and not pads.any()
    if n.op_type == "Slice":
        rest = [g.constants.get(i) for i in n.input[1:]]
        if any(r is None for r in rest):
            return False
        starts, ends, axes, steps = sliced(n, g)
        whole = [
            s == 0 and t == 1 and _at_end(e, shape, a) for s, e, a, t in zip(starts, ends, axes, steps, strict=True)
        ]
        return all(whole)
    return False


def _at_end(end: int, shape: list[int | str] | None, axis: int) -> bool:
    size = shape[axis] if shape is not None else None
    return end >= _LAST or (isinstance(size, int) and end >= size)


def _drop_identities(g: Canonical) -> None:
    for n in list(g.nodes):
        if not _is_identity(g, n):
            continue
        source, result = n.input[0], n.output[0]
        if result in g.output_names:
            inner = source not in g.constants and source not in {i.name for i in g.inputs} | g.output_names
            if not inner:
                continue  # a model that hands on its input or a constant needs the node
            g.nodes.remove(n)
            rename(g, source, result)
        else:
            g.nodes.remove(n)
            rename(g, result, source)
            if n.op_type == "Identity" and source in g.constants:
                g.shapes[source] = list(g.constants[source].shape)


def _constant_reshapes(g: Canonical) -> None:
    """A shape computed from the input's free axis becomes a constant (0 = copy, -1 = the rest), or a Flatten."""
    for i, n in enumerate(g.nodes):
        if n.op_type != "Reshape":
            continue
        source, out = g.shapes.get(n.input[0]), g.shapes.get(n.output[0])
        if not source or not out or 0 in source or 0 in out:
            continue  # without empty tensors, allowzero says nothing
        if len(out) == 2 and source[0] == out[0] and source[0] != "" and isinstance(out[1], int):
            g.nodes[i] = helper.make_node("Flatten", [n.input[0]], list(n.output), axis=1)
            continue
        if n.input[1] in g.constants:
            if g.constants[n.input[1]].all():
                g.nodes[i] = helper.make_node("Reshape", list(n.input), list(n.output))
            continue
        target = _target(source, out)
        if target is not None:
            name = f"{n.output[0]}_shape"
            put(g, name, np.array(target, np.int64))
            g.nodes[i] = helper.make_node("Reshape", [n.input[0], name], list(n.output))


def _target(source: list[int | str], out: list[int | str]) -> list[int] | None:
    """The constant shape argument that gives `out` for every size of the free axes, if there is one."""
    target: list[int] = []
    for axis, size in enumerate(out):
        if isinstance(size, int):
            target.append(size)
        elif size and axis < len(source) and source[axis] == size:
            target.append(0)
        elif -1 not in target:
            target.append(-1)
        else:
            return None
    return target


def _plain_splits(g: Canonical) -> None:
    """SplitToSequence whose parts are all picked by constant index -> Split."""
    for n in list(g.nodes):
        if n.op_type != "SplitToSequence" or len(n.input) < 2 or n.input[1] not in g.constants:
            continue
        picks = g.readers(n.output[0])
        plain = all(p.op_type == "SequenceAt" and p.input[1] in g.constants for p in picks)
        shape, given = g.shapes.get(n.input[0]), attributes(n)
        axis = given.get("axis", 0)
        size = shape[axis] if shape is not None else ""
        if not plain or not isinstance(size, int) or n.output[0] in g.output_names or not given.get("keepdims", 1):
            continue
        parts = g.constants[n.input[1]].reshape(-1).tolist()
        if g.constants[n.input[1]].ndim == 0:
            parts = [parts[0]] * (size // parts[0]) + ([size % parts[0]] if size % parts[0] else [])
        outputs = [f"{n.output[0]}_part{i}" for i in range(len(parts))]
        for p in picks:
            index = int(g.constants[p.input[1]])
            old = outputs[index]
            if old.endswith(f"_part{index % len(parts)}"):
                outputs[index] = p.output[0]
            else:  # picked twice
                g.nodes[g.nodes.index(p)] = helper.make_node("Identity", [old], list(p.output))
        sizes = f"{n.output[0]}_sizes"
        put(g, sizes, np.array(parts, np.int64))
        g.nodes[g.nodes.index(n)] = helper.make_node("Split", [n.input[0], sizes], outputs, axis=axis)
        g.nodes = [x for x in g.nodes if not (x.op_type == "SequenceAt" and x.input[0] == n.output[0])]


def _merge_slices(g: Canonical) -> None:
    """x[:, :, ::2][:, :, :, ::2] is one Slice; parts that take everything go."""
    for n in list(g.nodes):
        if n.op_type != "Slice" or any(i not in g.constants for i in n.input[1:]):
            continue
        starts, ends, axes, steps = sliced(n, g)
        source = n.input[0]
        inner = g.producer(source)
        if inner is not None and inner.op_type == "Slice" and all(i in g.constants for i in inner.input[1:]):
            more = sliced(inner, g)
            alone = len(g.readers(source)) == 1 and source not in g.output_names
            if alone and not set(more[2]) & set(axes):
                starts, ends, axes, steps = ([*m, *o] for m, o in zip(more, (starts, ends, axes, steps), strict=True))
                source = inner.input[0]
                g.nodes.remove(inner)
        shape = g.shapes.get(source)
        kept = [
            p for p in zip(starts, ends, axes, steps, strict=True)
            if not (p[0] == 0 and p[3] == 1 and _at_end(p[1], shape, p[2]))
        ]  # fmt: skip
        if not kept or (source == n.input[0] and len(kept) == len(starts) and _is_plain_slice(n, g, kept)):
            continue
        names = []
        for label, column in zip(("starts", "ends", "axes", "steps"), zip(*kept, strict=True), strict=True):
            if label == "steps" and all(s == 1 for s in column):
                continue
            ints = [min(c, _LAST) for c in column]
            names.append(f"{n.output[0]}_{label}")
            put(g, names[-1], np.array(ints, np.int64))
        made = helper.make_node("Slice", [source, *names], list(n.output))
        g.nodes[g.nodes.index(n)] = made


def _is_plain_slice(n: Any, g: Canonical, kept: list[Any]) -> bool:
    steps = g.constants[n.input[4]].tolist() if len(n.input) > 4 else None
    return max(p[1] for p in kept) <= _LAST and (steps is None or any(s != 1 for s in steps))


def _global_pools(g: Canonical) -> None:
    """A mean over all positions is GlobalAveragePool, followed by Flatten where the axes are dropped."""
    for n in list(g.nodes):
        shape = g.shapes.get(n.input[0]) if n.input else None
        if shape is None or len(shape) < 3:
            continue
        at, given = g.nodes.index(n), attributes(n)
        space = list(range(2, len(shape)))
        if n.op_type == "AveragePool":
            full = list(given.get("kernel_shape", ())) == shape[2:] and not any(given.get("pads", ()))
            if full and g.shapes.get(n.output[0], [])[2:] == [1] * len(space):
                g.nodes[at] = helper.make_node("GlobalAveragePool", [n.input[0]], list(n.output))
        elif n.op_type == "ReduceMean":
            named = g.constants.get(n.input[1]) if len(n.input) > 1 else given.get("axes")  # the latter before opset 18
            if named is None or sorted(int(a) % len(shape) for a in np.ravel(named)) != space:
                continue
            if given.get("keepdims", 1):
                g.nodes[at] = helper.make_node("GlobalAveragePool", [n.input[0]], list(n.output))
            else:
                pooled = f"{n.output[0]}_pooled"
                g.shapes[pooled], g.types[pooled] = [*shape[:2], *([1] * len(space))], g.types.get(n.input[0], 1)
                pair = [
                    helper.make_node("GlobalAveragePool", [n.input[0]], [pooled]),
                    helper.make_node("Flatten", [pooled], list(n.output), axis=1),
                ]
                g.nodes[at : at + 1] = pair


def _drop_zero_biases(g: Canonical) -> None:
    """Exporters invent zero biases for convolutions without one; a parameter of the model stays."""
    for n in g.nodes:
        if (
            n.op_type in ("Conv", "Gemm")
            and len(n.input) == 3
            and n.input[2] in g.constants
            and n.input[2] not in g.params
        ) and not g.constants[n.input[2]].any():
            del n.input[2]


def _fold_norms(g: Canonical) -> None:
    """Conv or Gemm + BatchNormalization -> one layer, in double, rounded once.

    Changes snapped values: only when asked for.
    """
    for norm in [n for n in g.nodes if n.op_type == "BatchNormalization"]:
        layer = g.producer(norm.input[0])
        alone = layer is not None and _takes_norms(layer) and len(g.readers(norm.input[0])) == 1
        if not alone or norm.input[0] in g.output_names or any(i not in g.constants for i in norm.input[1:5]):
            continue
        if layer is None or layer.input[1] not in g.constants or len(g.readers(layer.input[1])) != 1:
            continue
        gamma, beta, mean, var = (g.constants[i].astype(np.float64) for i in norm.input[1:5])
        factor = gamma / np.sqrt(var + attributes(norm).get("epsilon", 1e-5))
        w = g.constants[layer.input[1]]
        bias = np.zeros(factor.shape)
        if len(layer.input) > 2:
            if layer.input[2] not in g.constants or g.constants[layer.input[2]].shape != factor.shape:
                continue
            bias = g.constants[layer.input[2]].astype(np.float64)
        rows = layer.op_type == "Conv" or attributes(layer).get("transB", 0)
        spread = factor.reshape(-1, *([1] * (w.ndim - 1))) if rows else factor
        g.constants[layer.input[1]] = (w * spread).astype(w.dtype)
        name = layer.input[2] if len(layer.input) > 2 else layer.input[1].removesuffix("weight") + "bias"
        put(g, name, ((bias - mean) * factor + beta).astype(w.dtype))
        g.params |= {name}
        if len(layer.input) == 2:
            layer.input.append(name)
        g.nodes.remove(norm)
        rename(g, norm.input[0], norm.output[0])
        layer.output[0] = norm.output[0]


def _takes_norms(n: Any) -> bool:
    given = attributes(n)
    plain = not given.get("transA", 0) and given.get("alpha", 1) == given.get("beta", 1) == 1
    return n.op_type == "Conv" or (n.op_type == "Gemm" and plain)


def _drop_unused(g: Canonical) -> None:
    needed = set(g.output_names)
    kept = []
    for n in reversed(g.nodes):
        if any(o in needed for o in n.output):
            kept.append(n)
            needed |= set(n.input)
    g.nodes = kept[::-1]
    g.constants = {k: v for k, v in g.constants.items() if k in needed}


# Attributes without a default in the schema whose absence means the same, and what must hold for that.


_IMPLIED = {
    "pads": lambda v: not any(v),
    "dilations": lambda v: all(x == 1 for x in v),
    "strides": lambda v: all(x == 1 for x in v),
}


def _drop_defaults(g: Canonical) -> None:
    """Attributes that say what their absence says; the momentum of norms, which inference does not read."""
    for n in g.nodes:
        schema = onnx.defs.get_schema(n.op_type, g.opset, "")
        keep = []
        for a in n.attribute:
            value, known = helper.get_attribute_value(a), schema.attributes.get(a.name)
            default = known.default_value if known is not None else None
            same = default is not None and default.name and helper.get_attribute_value(default) == value
            implied = a.name in _IMPLIED and n.op_type in ("Conv", "MaxPool", "AveragePool") and _IMPLIED[a.name](value)
            inferred = n.op_type == "Conv" and a.name == "kernel_shape"  # the weight's own shape
            idle = n.op_type == "BatchNormalization" and a.name == "momentum"
            if not (same or implied or inferred or idle):
                keep.append(a)
        keep.sort(key=lambda a: a.name)
        del n.attribute[:]
        n.attribute.extend(keep)


def _share_equal_constants(g: Canonical) -> None:
    """Small constants of the code (not parameters) that are equal become one."""
    seen: dict[tuple[Any, ...], str] = {}
    for name in list(g.constants):
        value = g.constants[name]
        if name in g.params:
            continue
        key = (value.dtype.str, value.shape, value.tobytes())
        if key in seen:
            rename(g, name, seen[key])
            del g.constants[name]
        else:
            seen[key] = name
