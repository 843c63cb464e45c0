"""Fake-quantize calls in ONNX: QuantizeLinear and DequantizeLinear, by whose meaning integer runtimes compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto, helper
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.tensor_typing import TFloat

_TYPES = {(0, 255): TensorProto.UINT8, (-128, 127): TensorProto.INT8}


def translations() -> dict[Any, Callable[..., Any]]:
    """ATen call -> its form in ONNX, for torch's exporter."""
    return {torch.ops.aten.fake_quantize_per_tensor_affine.tensor_qparams: _fake_quantize}


def _fake_quantize(
    self: TFloat,
    scale: TFloat,
    zero_point: TFloat,
    quant_min: int,
    quant_max: int,
) -> TFloat:
    if (quant_min, quant_max) not in _TYPES:
        raise NotImplementedError(f"fake_quantize to {quant_min}..{quant_max}; 0..255 or -128..127 is possible")
    like = helper.make_tensor("zero", _TYPES[quant_min, quant_max], [], [0])
    zero = op.CastLike(zero_point, op.Constant(value=like))
    return op.DequantizeLinear(op.QuantizeLinear(self, scale, zero), scale, zero)
