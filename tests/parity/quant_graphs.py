"""Small quantized graphs and what they must compute, for the tests of the integer engine."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.engine.oracle import oracle
from secateur.native import _native

F = np.float32
ISAS = _native.isas()


class Net:
    """A quantized graph and, node by node, what it must compute."""

    def __init__(self, seed: int, s8: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.s8 = s8
        self.n = 0

    def name(self) -> str:
        self.n += 1
        return f"v{self.n}"

    def const(self, value: Any, dtype: Any) -> str:
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def grid(self) -> tuple[np.float32, int]:
        scale = F(self.rng.uniform(0.01, 0.05))
        return scale, int(self.rng.integers(-128, 128) if self.s8 else self.rng.integers(0, 256))

    def quantize(self, x: str, scale: np.float32, zero: int) -> str:
        return self.node("QuantizeLinear", x, self.const(scale, F), self.const(zero, np.int8 if self.s8 else np.uint8))

    def dequantize(self, q: str, scale: np.float32, zero: int) -> str:
        return self.node(
            "DequantizeLinear", q, self.const(scale, F), self.const(zero, np.int8 if self.s8 else np.uint8)
        )

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, int], domains: tuple[str, ...] = ()) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())

    @property
    def qtype(self) -> int:
        return TensorProto.INT8 if self.s8 else TensorProto.UINT8

    @property
    def bounds(self) -> tuple[int, int]:
        return (-128, 127) if self.s8 else (0, 255)


def rint(x: Any) -> np.ndarray:
    return np.rint(x).astype(np.int64)


def conv_sums(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int, groups: int) -> np.ndarray:
    """Integers [N, O, H, W]; x is already less its zero point."""
    kernel = w.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    reach = dilation * (kernel - 1) + 1
    oh, ow = (x.shape[2] - reach) // stride + 1, (x.shape[3] - reach) // stride + 1
    y = np.zeros((x.shape[0], w.shape[0], oh, ow), np.int64)
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for g, u, v in product(range(groups), range(kernel), range(kernel)):
        part = x[:, g * per_in : (g + 1) * per_in, u * dilation :, v * dilation :][:, :, ::stride, ::stride][
            :, :, :oh, :ow
        ]
        y[:, g * per_out : (g + 1) * per_out] += np.einsum(
            "nchw,oc->nohw", part, w[g * per_out : (g + 1) * per_out, :, u, v].astype(np.int64)
        )
    return y


def on_every_isa(monkeypatch: pytest.MonkeyPatch, model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    results = []
    for isa in ISAS:
        monkeypatch.setenv("SECATEUR_ISA", isa)
        for threads in (1, 2):
            results.append(InferenceSession(model, threads=threads).run(None, feeds))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    return results[0]


def against_oracle(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Whoever computes the model as it says: ONNX Runtime optimised is not that (`engine/oracle.py`)."""
    found = oracle(model)
    if found is None:
        pytest.skip("nobody here computes this model without saturating")
    return [np.asarray(y) for y in found.call(feeds)]


def layer(
    net: Net, x: str, x_grid: Any, w: np.ndarray, per_channel: bool, relu: str, bias: str, **attributes: Any
) -> Any:
    """Adds DequantizeLinear, Conv, QuantizeLinear. Returns (name, weights scale, int32 bias, y grid, bounds of y)."""
    scale = net.rng.uniform(0.001, 0.01, w.shape[0] if per_channel else ()).astype(F)
    wq = net.node(
        "DequantizeLinear", net.const(w, np.int8), net.const(scale, F), net.const(np.zeros_like(scale), np.int8), axis=0
    )
    inputs = [net.dequantize(x, *x_grid), wq]
    steps = (x_grid[0] * scale) * np.ones(w.shape[0], F)
    b = net.rng.integers(-3000, 3000, w.shape[0])
    if bias == "int32":
        zero = net.const(np.zeros(w.shape[0]), np.int32)
        inputs.append(net.node("DequantizeLinear", net.const(b, np.int32), net.const(steps, F), zero, axis=0))
    elif bias == "float":
        inputs.append(net.const(b.astype(np.float64) * steps, F))
    else:
        b = np.zeros_like(b)
    y_grid = net.grid()
    lo, hi = net.bounds
    y = net.node("Conv", *inputs, **attributes)
    if relu == "relu":
        y = net.node("Relu", y)
        lo = y_grid[1]
    elif relu == "clip":
        y = net.node("Clip", y, net.const(0, F), net.const(1.5, F))
        lo = y_grid[1]
        hi = min(hi, int(rint(F(1.5) / y_grid[0])) + y_grid[1])
    return net.quantize(y, *y_grid), scale * np.ones(w.shape[0], F), b, y_grid, (lo, hi)


def requantized(sums: np.ndarray, b: Any, scale: Any, x_grid: Any, y_grid: Any, bounds: Any) -> np.ndarray:
    factor = (x_grid[0] * scale / y_grid[0]).astype(F)
    q = rint((sums + b[:, None, None]).astype(F) * factor[:, None, None]) + y_grid[1]
    return np.clip(q, *bounds)
