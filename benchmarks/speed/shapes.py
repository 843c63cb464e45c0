"""The layers and nets whose speed is measured: ONNX files made here, with random weights pruned to a density."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One convolution (map height > 0) or linear layer (height 0), square, with Relu and perhaps a 2x2 max-pool."""

    name: str
    inputs: int
    outputs: int
    size: int = 0
    kernel: int = 1
    stride: int = 1
    pad: int = 0
    pool: bool = False


LAYERS: dict[str, tuple[Layer, ...]] = {
    "lenet5": (
        Layer("conv1+pool", 1, 20, 28, 5, pool=True),
        Layer("conv2+pool", 20, 50, 12, 5, pool=True),
        Layer("fc1", 800, 500),
        Layer("fc2", 500, 10),
    ),
    "lenet300": (Layer("fc1", 784, 300), Layer("fc2", 300, 100), Layer("fc3", 100, 10)),
    "resnet20": (
        Layer("stem", 3, 16, 32, 3, pad=1),
        Layer("16@32", 16, 16, 32, 3, pad=1),
        Layer("16-32/2", 16, 32, 32, 3, stride=2, pad=1),
        Layer("32@16", 32, 32, 16, 3, pad=1),
        Layer("32-64/2", 32, 64, 16, 3, stride=2, pad=1),
        Layer("64@8", 64, 64, 8, 3, pad=1),
    ),
    "vgg16": (
        Layer("64@32", 64, 64, 32, 3, pad=1),
        Layer("64@32+pool", 64, 64, 32, 3, pad=1, pool=True),
        Layer("128@16", 128, 128, 16, 3, pad=1),
        Layer("256@8", 256, 256, 8, 3, pad=1),
        Layer("512@4", 512, 512, 4, 3, pad=1),
        Layer("512@2", 512, 512, 2, 3, pad=1),
        Layer("fc", 512, 512),
    ),
    "resnet50": (
        Layer("64@56", 64, 64, 56, 3, pad=1),
        Layer("128@28", 128, 128, 28, 3, pad=1),
        Layer("256@14", 256, 256, 14, 3, pad=1),
        Layer("512@7", 512, 512, 7, 3, pad=1),
        Layer("1x1 64-256@56", 64, 256, 56),
        Layer("1x1 256-64@56", 256, 64, 56),
        Layer("1x1 512-128@28", 512, 128, 28),
        Layer("1x1 1024-256@14", 1024, 256, 14),
        Layer("1x1 256-1024@14", 256, 1024, 14),
        Layer("1x1 2048-512@7", 2048, 512, 7),
    ),
}
NETS = tuple(LAYERS)


Block = tuple[int, int]  # output x input channels that are pruned together


class Builder:
    """Collects nodes and weights of one graph, pruned in blocks of outputs x inputs; values are v0, v1, ..."""

    def __init__(self, density: float, seed: int, block: Block = (1, 1)) -> None:
        self.rng = np.random.default_rng(seed)
        self.density = density
        self.block = block
        self.nodes: list[object] = []
        self.weights: list[object] = []
        self.n_values = 0

    def _value(self) -> str:
        self.n_values += 1
        return f"v{self.n_values}"

    def weight(self, *shape: int, prune: bool = True, fan_in: int | None = None, inputs_axis: int = 1) -> str:
        fan_in = fan_in or (int(np.prod(shape[1:])) if len(shape) > 1 else 1)
        # Kaiming scale, raised by what pruning takes away, so that activations neither vanish nor explode.
        scale = np.sqrt(2.0 / fan_in / (self.density if prune else 1.0)) if len(shape) > 1 else 0.1
        value = self.rng.standard_normal(shape) * scale
        if prune and len(shape) > 1:
            sizes = [
                self.block[1] if axis == inputs_axis else self.block[0] if axis < 2 else 1 for axis in range(len(shape))
            ]
            kept = self.rng.random([-(-n // size) for n, size in zip(shape, sizes, strict=True)]) < self.density
            for axis, size in enumerate(sizes):
                kept = np.repeat(kept, size, axis=axis)
            value = np.where(kept[tuple(slice(n) for n in shape)], value, 0.0)  # a product would leave -0.0
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        out = self._value()
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def several(self, n: int, op: str, *inputs: str, **attributes: object) -> list[str]:
        """A node of n results."""
        out = [self._value() for _ in range(n)]
        self.nodes.append(helper.make_node(op, list(inputs), out, **attributes))
        return out

    def conv(self, x: str, layer: Layer, relu: bool = True, prune: bool = True) -> str:
        k, p = layer.kernel, layer.pad
        w = self.weight(layer.outputs, layer.inputs, k, k, prune=prune)
        y = self.node(
            "Conv", x, w, self.weight(layer.outputs), kernel_shape=[k, k], strides=[layer.stride] * 2, pads=[p] * 4
        )
        if relu:
            y = self.node("Relu", y)
        if layer.pool:
            y = self.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        return y

    def linear(self, x: str, inputs: int, outputs: int, relu: bool = True, prune: bool = True) -> str:
        y = self.node("Gemm", x, self.weight(outputs, inputs, prune=prune), self.weight(outputs), transB=1)
        return self.node("Relu", y) if relu else y

    def file(self, x_shape: list[int], y: str) -> bytes:
        """The ONNX file with input `x` of shape [batch, *x_shape] and output `y` (last value)."""
        graph = helper.make_graph(
            self.nodes,
            "speed",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *x_shape])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())


def layer_file(layer: Layer, density: float, seed: int = 0, block: Block = (1, 1)) -> tuple[bytes, int]:
    """The layer as a net, and how often it stands in it: layers that fit themselves are chained four times.

    A chain keeps the cost of a call, about 1 us here and 5 us in ONNX Runtime, out of the time of a layer.
    """
    b = Builder(density, seed, block)
    chain = 4 if layer.inputs == layer.outputs and layer.stride == 1 and not layer.pool else 1
    x = "x"
    for _ in range(chain):
        x = b.conv(x, layer) if layer.size else b.linear(x, layer.inputs, layer.outputs)
    return b.file([layer.inputs, layer.size, layer.size] if layer.size else [layer.inputs], x), chain


def _lenet5(b: Builder) -> bytes:
    x = b.conv("x", Layer("conv1", 1, 20, 28, 5, pool=True), relu=False)
    x = b.conv(x, Layer("conv2", 20, 50, 12, 5, pool=True), relu=False)
    x = b.linear(b.node("Flatten", x), 800, 500)
    return b.file([1, 28, 28], b.linear(x, 500, 10, relu=False))


def _lenet300(b: Builder) -> bytes:
    x = b.linear(b.linear("x", 784, 300), 300, 100)
    return b.file([784], b.linear(x, 100, 10, relu=False))


def _resnet20(b: Builder) -> bytes:
    x = b.conv("x", Layer("", 3, 16, 32, 3, pad=1), prune=False)
    width = 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage > 0 and block == 0 else 1
            y = b.conv(x, Layer("", width, outputs, 0, 3, stride, 1))
            y = b.conv(y, Layer("", outputs, outputs, 0, 3, 1, 1), relu=False)
            if stride == 2:
                x = b.conv(x, Layer("", width, outputs, 0, 1, 2, 0), relu=False)
            x = b.node("Relu", b.node("Add", y, x))
            width = outputs
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.file([3, 32, 32], b.linear(x, 64, 10, relu=False, prune=False))


def vgg16_features(b: Builder) -> str:
    """VGG-16's convolutions, the first one dense; the value of the last, flattened."""
    x, width = "x", 3
    for stage, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for i in range(depth):
            layer = Layer("", width, outputs, 0, 3, 1, 1, pool=i + 1 == depth)
            x = b.conv(x, layer, prune=stage > 0 or i > 0)
            width = outputs
    return b.node("Flatten", x)


def _vgg16(b: Builder) -> bytes:
    x = b.linear(vgg16_features(b), 512, 512)
    return b.file([3, 32, 32], b.linear(x, 512, 10, relu=False, prune=False))


def net_file(name: str, density: float, seed: int = 0, block: Block = (1, 1)) -> bytes:
    """The whole net; of ResNet-20 and VGG-16 (for CIFAR) the stem and the last layer stay dense."""
    build = {"lenet5": _lenet5, "lenet300": _lenet300, "resnet20": _resnet20, "vgg16": _vgg16}
    return build[name](Builder(density, seed, block))


def shapes(nets: tuple[str, ...]) -> Iterator[tuple[str, Layer]]:
    """(net, layer) of the nets asked for."""
    for net in nets:
        for layer in LAYERS[net]:
            yield net, layer
