"""Random QDQ networks: convolutions, pools, sums, products, joins, functions and reshapes between them, each on a grid.

A network is drawn from a seed. What stands between two integer layers must give the same bytes on every ISA, so the
nets hold no float layer of their own; their output is a byte tensor or its dequantized values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from .quant_graphs import F, Net

Grid = tuple[np.float32, int]
Value = tuple[str, Grid, int, int]  # bytes, their grid, channels, size of the image


class RandomNet:
    """Values grow from the input; every step takes one or two of them and leaves one on a new grid."""

    def __init__(self, seed: int) -> None:
        self.net = Net(seed, s8=bool(seed % 3 == 1))
        self.rng = self.net.rng
        self.size = int(self.rng.integers(5, 14))
        channels = int(self.rng.integers(1, 9))
        grid = self.net.grid()
        self.shape = [1, channels, self.size, self.size]
        self.values: list[Value] = [(self.net.quantize("x", *grid), grid, channels, self.size)]

    def real(self, value: Value) -> str:
        return self.net.dequantize(value[0], *value[1])

    def keep(self, y: str, channels: int, size: int, grid: Grid | None = None) -> Value:
        grid = grid or self.net.grid()
        self.values.append((self.net.quantize(y, *grid), grid, channels, size))
        return self.values[-1]

    def weights(self, shape: tuple[int, ...], axis: int, fan: int) -> str:
        """Dequantized weights of s8 or u8, by tensor or by output, some nets with zero points."""
        unsigned = self.rng.random() < 0.4
        dtype: Any = np.uint8 if unsigned else np.int8
        info = np.iinfo(dtype)
        count = shape[axis] if self.rng.random() < 0.5 else 0
        scale = np.asarray(self.rng.uniform(0.5, 1.5, count or ()) / (80 * fan**0.5), F)
        zero = self.rng.integers(90, 160, count or ()) if unsigned else np.zeros(count or (), int)
        w = self.rng.integers(info.min, int(info.max) + 1, shape) * (
            self.rng.random(shape) < self.rng.choice([0.1, 0.6, 1])
        )
        constants = (self.net.const(w, dtype), self.net.const(scale, F), self.net.const(zero, dtype))
        return self.net.node("DequantizeLinear", *constants, axis=axis)

    def conv(self, v: Value) -> Value:
        _, _, c, size = v
        kernel = int(self.rng.choice([1, 3, 3, 5]))
        stride = int(self.rng.choice([1, 1, 2]))
        groups = int(self.rng.choice([1, 1, c]))
        out = c if groups > 1 else int(self.rng.integers(1, 13))
        pad = kernel // 2
        w = self.weights((out, c // groups, kernel, kernel), 0, c // groups * kernel * kernel)
        y = self.net.node("Conv", self.real(v), w, strides=[stride] * 2, pads=[pad] * 4, group=groups)
        kind = self.rng.integers(0, 4)
        if kind == 1:
            y = self.net.node("Relu", y)
        elif kind == 2:
            y = self.net.node("Clip", y, self.net.const(0, F), self.net.const(6, F))
        return self.keep(y, out, (size + 2 * pad - kernel) // stride + 1)

    def function(self, v: Value) -> Value:
        """A function of one value: a table, by the engine."""
        x = self.real(v)
        op = str(
            self.rng.choice(["Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "SiLU", "Relu", "GELU"])
        )
        if op == "SiLU":
            y = self.net.node("Mul", x, self.net.node("Sigmoid", x))
        elif op == "GELU":
            gate = self.net.node(
                "Add", self.net.node("Erf", self.net.node("Div", x, self.net.const(2**0.5, F))), self.net.const(1, F)
            )
            y = self.net.node("Mul", self.net.node("Mul", x, gate), self.net.const(0.5, F))
        else:
            y = self.net.node(op, x)
        return self.keep(y, v[2], v[3])

    def pool(self, v: Value) -> Value:
        _, grid, c, size = v
        kernel = int(self.rng.integers(2, 4))
        if size < kernel + 1:
            return self.function(v)
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [2, 2]}
        pad = int(self.rng.integers(0, 2))
        out = (size + 2 * pad - kernel) // 2 + 1
        if self.rng.random() < 0.5:
            y = self.net.node("MaxPool", self.real(v), pads=[pad] * 4, **attributes)
            return self.keep(y, c, out, grid if self.rng.random() < 0.7 else None)
        include = int(self.rng.integers(0, 2))
        y = self.net.node("AveragePool", self.real(v), pads=[pad] * 4, count_include_pad=include, **attributes)
        return self.keep(y, c, out)

    def add(self, v: Value) -> Value:
        same = [u for u in self.values if u[2:] == v[2:]]
        other = same[int(self.rng.integers(0, len(same)))]
        y = self.net.node("Add", self.real(v), self.real(other))
        return self.keep(self.net.node("Relu", y) if self.rng.random() < 0.5 else y, v[2], v[3])

    def gate(self, v: Value) -> Value:
        """Squeeze and excite: mean over the image, a layer, a sigmoid, a product that broadcasts."""
        _, _, c, size = v
        pooled = self.mean(v, keep=True)
        y = self.net.node("Conv", self.real(pooled), self.weights((c, c, 1, 1), 0, c))
        s = self.keep(self.net.node("Sigmoid", self.real(self.keep(y, c, 1))), c, 1)
        return self.keep(self.net.node("Mul", self.real(v), self.real(s)), c, size)

    def mean(self, v: Value, keep: bool) -> Value:
        """The forms exporters write; without `keep` a matrix."""
        x = self.real(v)
        kind = int(self.rng.integers(0, 3))
        if keep:
            axes = [2, 3] if kind == 1 else [-1, -2]
            y = self.net.node("GlobalAveragePool", x) if kind == 0 else self.net.node("ReduceMean", x, axes=axes)
            return self.keep(y, v[2], 1)
        if kind == 0:
            return self.keep(self.net.node("ReduceMean", x, axes=[2, 3], keepdims=0), v[2], 1)
        y = self.net.node("GlobalAveragePool", x)
        if kind == 1:
            return self.keep(self.net.node("Flatten", y), v[2], 1)
        return self.keep(self.net.node("Squeeze", y, self.net.const([2, 3], np.int64)), v[2], 1)

    def join(self, v: Value) -> Value:
        same = [u for u in self.values if u[3] == v[3]]
        other = same[int(self.rng.integers(0, len(same)))]
        return self.keep(self.net.node("Concat", self.real(v), self.real(other), axis=1), v[2] + other[2], v[3])

    def resize(self, v: Value) -> Value:
        if v[3] > 16:
            return self.pool(v)
        mode = str(self.rng.choice(["nearest", "linear"]))
        way = "asymmetric" if mode == "nearest" else "half_pixel"
        sizes = self.net.const([1, 1, 2, 2], F)
        y = self.net.node(
            "Resize", self.real(v), "", sizes, mode=mode, coordinate_transformation_mode=way, nearest_mode="floor"
        )
        return self.keep(y, v[2], 2 * v[3])

    def build(self) -> tuple[bytes, np.ndarray]:
        """The model and an input for it."""
        steps = [self.conv, self.conv, self.conv, self.function, self.pool, self.add, self.gate, self.join, self.resize]
        v = self.conv(self.values[-1])
        for _ in range(int(self.rng.integers(2, 9))):
            v = steps[int(self.rng.integers(0, len(steps)))](v)
        name, _, c, _ = v
        outputs = {name: self.net.qtype}
        if self.rng.random() < 0.8:
            flat = self.mean(v, keep=False)
            w = self.weights((c, 7), 1, c)
            y = self.net.node("MatMul", self.real(flat), w)
            last = self.net.grid()
            q = self.net.quantize(y, *last)
            outputs = {self.net.dequantize(q, *last): TensorProto.FLOAT}
        x = (self.rng.standard_normal(self.shape) * 2).astype(F)
        return self.net.model({"x": self.shape}, outputs), x
