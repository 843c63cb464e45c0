"""What the results of an int8 model are judged by: someone who computes them as the file says.

ONNX Runtime as it is deployed is not that. It turns QuantizeLinear and DequantizeLinear into integer layers, and on
CPUs without VNNI the products of their u8 activations and s8 weights saturate in 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine.peers import Call, Feeds
from secateur.native import _native
from secateur.shell import runtimes

Array = NDArray[Any]

UNOPTIMISED = "ONNX Runtime without graph optimisation (integers between float32 layers)"
EXACT_PRODUCTS = "ONNX Runtime without graph optimisation (this CPU's integer products do not saturate)"
REFERENCE = "ONNX's reference evaluator"

_SMALL = 2 << 20  # bytes of a model that the reference evaluator, written in Python, may run
_OPSET = 21  # the evaluator has no older DequantizeLinear
_PRODUCTS = {
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
}  # fmt: skip


@dataclass(frozen=True)
class Oracle:
    """A way to run a model, and what it is called in records and tables."""

    name: str
    call: Call


def oracle(model: bytes) -> Oracle | None:
    """Who judges an int8 model here; None where neither `onnxruntime` nor `onnx` is installed, or neither takes it.

    Args:
        model: an ONNX file.
    """
    integers = any(op.rpartition(".")[2] in _PRODUCTS for _, op, *_ in _native.File(model).partition({})["nodes"])
    exact = not {"vnni", "avxvnni"}.isdisjoint(_native.isas())
    ways = [_reference, _unoptimised] if integers and not exact else [_unoptimised, _reference]
    for way in ways:
        call = way(model)
        if call is not None and way is _reference:
            return Oracle(REFERENCE, call)
        if call is not None and not integers:
            return Oracle(UNOPTIMISED, call)
        if call is not None and exact:
            return Oracle(EXACT_PRODUCTS, call)
    return None


def _unoptimised(model: bytes) -> Call | None:
    try:
        ort = runtimes.onnxruntime()
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's errors have no common class but this
        return None
    return lambda feeds: session.run(None, dict(feeds))


def _reference(model: bytes) -> Call | None:
    if len(model) > _SMALL:
        return None
    try:
        import onnx
        from onnx import version_converter
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        return None
    try:
        net = onnx.load_model_from_string(model)
        if any(o.domain in ("", "ai.onnx") and o.version < _OPSET for o in net.opset_import):
            net = version_converter.convert_version(net, _OPSET)
        evaluator = ReferenceEvaluator(net)
    except Exception:  # operators it does not have, and its errors have no class
        return None

    def call(feeds: Feeds) -> Sequence[Array]:
        with np.errstate(all="ignore"):
            found: list[Array] = evaluator.run(None, dict(feeds))
        return found

    return call
