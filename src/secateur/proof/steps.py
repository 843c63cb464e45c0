"""Networks with steps (spikes, comparisons, rounding): what it means that two runtimes agree on them.

An example whose value lies on a step within rounding may fall on either side, and its answer then differs by whatever
the step is worth. That is no error of either runtime, and rare: all but a small share of the examples must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SHARE = 0.02  # of the examples may fall on the other side of a step
_USUAL = 0.9  # quantile of the examples' gaps that counts as rounding
_COMPARE = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
_STEPS = _COMPARE | {"Sign", "Floor", "Ceil", "Round", "TopK", "ArgMax", "ArgMin", "Mod", "Unique", "NonZero"}
_STEPS |= {"Hardmax", "Shrink", "ThresholdedRelu"}
_CASTS = frozenset({"Cast", "CastLike"})  # steps when they make whole numbers or booleans
_FLOATS = frozenset({1, 10, 11, 16})  # ONNX's float32, float16, float64 and bfloat16


def has_steps(onnx: bytes) -> bool:
    """Does a network compare or round numbers that it computes? Whole numbers are exact, and infinity is far away."""
    import onnx as onnx_package

    return _steps_in(
        onnx_package.shape_inference.infer_shapes(onnx_package.load_model_from_string(onnx)).graph, {}, set()
    )


def _steps_in(graph: Any, types: dict[str, int], infinite: set[str]) -> bool:
    """`types` and `infinite`: element types, and the names of infinite constants, of the graphs around."""
    from onnx import numpy_helper

    types, infinite = dict(types), set(infinite)
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    types |= {t.name: t.data_type for t in graph.initializer}
    for t in graph.initializer:
        if t.data_type in _FLOATS and np.isinf(numpy_helper.to_array(t).astype(np.float64)).all():
            infinite.add(t.name)
    for n in graph.node:
        if any(
            _steps_in(inner, types, infinite)
            for a in n.attribute
            for inner in (*a.graphs, *([a.g] if a.HasField("g") else []))
        ):
            return True
        # A type that inference does not know may be a float.
        if not n.input or types.get(n.input[0], 1) not in _FLOATS:
            continue
        if n.op_type in _CASTS and types.get(n.output[0], 1) not in _FLOATS:
            return True
        if n.op_type in _STEPS and not (n.op_type in _COMPARE and infinite & set(n.input)):
            return True
    return False


def gaps(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """The largest difference of each example, over all outputs that have a row for every example."""
    n = len(a[0]) if a and a[0].ndim else 1
    worst = np.zeros(n)
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return np.full(n, np.inf)
        rows = np.abs(x.astype(np.float64) - y.astype(np.float64))
        rows = rows.reshape(n, -1) if x.ndim and len(x) == n else rows.reshape(1, -1)
        worst = np.maximum(worst, np.where(np.isfinite(rows), rows, np.inf).max(axis=1, initial=0.0))
    return worst


def usual_gap(a: Sequence[Array], b: Sequence[Array]) -> float:
    """What rounding does to examples that lie on no step."""
    return float(np.quantile(gaps(a, b), _USUAL))


def share_apart(a: Sequence[Array], b: Sequence[Array], tolerance: float) -> float:
    """The share of examples whose answers differ by more."""
    return float(np.mean(gaps(a, b) > tolerance))
