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
_STEPS = frozenset(
    {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Sign", "Floor", "Ceil", "Round", "TopK"}
    | {"ArgMax", "ArgMin", "Mod", "BitShift", "Unique", "NonZero"}
)


def has_steps(onnx: bytes) -> bool:
    """Does a network compare or round what it computes?"""
    import onnx as onnx_package

    def inside(graph: Any) -> bool:
        return any(
            n.op_type in _STEPS
            or any(inside(g) for a in n.attribute for g in (*a.graphs, *([a.g] if a.HasField("g") else [])))
            for n in graph.node
        )

    return inside(onnx_package.load_model_from_string(onnx).graph)


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
