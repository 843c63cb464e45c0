"""Int8 forms of a float32 model, made by ONNX Runtime's static quantization, and the float32 form of an int8 one."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine.peers import Unavailable
from secateur.native import _native
from secateur.shell import runtimes

Array = NDArray[Any]
N_EXAMPLES = 16  # ranges of activations settle; more would only take longer

_SCALES_PER_CHANNEL = 13  # opset

# They write operators that the model's opset need not have.
_NOT_STANDARD = ["LayerNormFusion", "LayerNormFusionL1", "SimplifiedLayerNormFusion"]
_INTEGER = {"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}


def computes_in_integers(model: bytes) -> bool:
    """Whether activations are quantized; quantized weights alone (DequantizeLinear) are not meant."""
    return any(op in _INTEGER for _, op, *_ in _native.File(model).partition({})["nodes"])


def static_int8(model: bytes, examples: Sequence[Mapping[str, Array]]) -> bytes:
    """The float32 ONNX model with QDQ pairs: u8 activations per tensor, s8 weights per channel, ranges by min and max.

    Norms are folded before, as deployment would. Of a Transformer only the products with weights are quantized, and not
    their results: of the ways tried that was the fastest for OpenVINO, no slower than the others for ONNX Runtime, and
    the nearest to float32.

    Args:
        examples: feeds whose activations give the ranges.
    Raises:
        Unavailable: onnx or onnxruntime is missing, or its quantizer does not take the model.
    """
    try:
        import onnx

        ort, q = runtimes.onnxruntime(), runtimes.onnxruntime("quantization")
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'secateur[compress,peers]')") from None

    class Reader(q.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter(examples)

        def get_next(self) -> dict[str, Array] | None:
            feed = next(self.left, None)
            return None if feed is None else dict(feed)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        folded, target = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        try:
            ort.InferenceSession(model, options, ["CPUExecutionProvider"], disabled_optimizers=_NOT_STANDARD)
            net = _of_scales_per_channel(onnx.load(folded))
            for i, node in enumerate(net.graph.node):
                node.name = f"n{i}"
            onnx.save(net, folded)
            q.quantize_static(
                folded,
                target,
                Reader(),
                quant_format=q.QuantFormat.QDQ,
                activation_type=q.QuantType.QUInt8,
                weight_type=q.QuantType.QInt8,
                per_channel=True,
                **_options(net),
            )
        except Exception as error:  # the quantizer has no errors of its own
            raise Unavailable(f"ONNX Runtime does not quantize it: {' '.join(str(error).split())[:200]}") from None
        return target.read_bytes()


def _of_scales_per_channel(net: Any) -> Any:
    """In opset 13, the first whose DequantizeLinear has an axis, by ONNX's converter, where it is older."""
    from onnx import version_converter

    net.ir_version = max(net.ir_version, 4)  # before, initializers had to be inputs too; from it on those may be fed
    constants = {t.name for t in net.graph.initializer}
    free = [i for i in net.graph.input if i.name not in constants]
    del net.graph.input[:]
    net.graph.input.extend(free)
    old = any(o.domain in ("", "ai.onnx") and o.version < _SCALES_PER_CHANNEL for o in net.opset_import)
    return version_converter.convert_version(net, _SCALES_PER_CHANNEL) if old else net


def _options(net: Any) -> dict[str, Any]:
    constants = {t.name for t in net.graph.initializer}
    attention = [n.name for n in net.graph.node if n.op_type == "MatMul" and not constants & {*n.input}]
    if not attention:
        return {}
    return {
        "op_types_to_quantize": ["MatMul"],
        "nodes_to_exclude": attention,
        "extra_options": {"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    }


def float_form(model: bytes) -> bytes | None:
    """A QDQ model without its rounding of activations; None where it cannot be had (no onnx, or another form).

    Every QuantizeLinear -> DequantizeLinear pair becomes a Clip to the range of its integers: saturation is part of
    what the model means, exporters drop a Relu that it stands in for. Weights keep the values of their grid.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        return None
    net = onnx.load_model_from_string(model)
    constants = {t.name: t for t in net.graph.initializer}
    made_by = {n.output[0]: n for n in net.graph.node if n.op_type == "QuantizeLinear"}
    kept = []
    for node in net.graph.node:
        if node.op_type in _INTEGER - {"QuantizeLinear"}:
            return None
        quantize = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantize is None:
            if node.op_type != "QuantizeLinear":
                kept.append(node)
            continue
        if len(quantize.input) < 3 or not {*quantize.input[1:]} <= constants.keys():
            return None
        scale, zero = (numpy_helper.to_array(constants[name]) for name in quantize.input[1:])
        if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
            return None
        ends = [f"{node.output[0]}/{end}" for end in ("low", "high")]
        for name, q in zip(ends, (np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max), strict=True):
            value = np.float32((q - int(zero.item())) * scale.item())
            net.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        kept.append(helper.make_node("Clip", [quantize.input[0], *ends], [node.output[0]], name=node.name))
    if {i for n in kept for i in n.input} & made_by.keys() or {o.name for o in net.graph.output} & made_by.keys():
        return None  # integers that something else reads
    del net.graph.node[:]
    net.graph.node.extend(kept)
    del net.graph.value_info[:]
    plain: bytes = net.SerializeToString()
    return plain


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on the root logger; nothing in its advice applies here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
