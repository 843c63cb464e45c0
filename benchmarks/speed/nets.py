"""Whole nets whose speed is measured, built by hand with random weights pruned to a density."""

from __future__ import annotations

import numpy as np
import shapes
from onnx import numpy_helper
from shapes import Block, Builder, Layer


def _resnet50(b: Builder) -> bytes:
    x = b.conv("x", Layer("stem", 3, 64, 0, 7, 2, 3), prune=False)
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, (inner, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            y = b.conv(x, Layer("", width, inner))
            y = b.conv(y, Layer("", inner, inner, 0, 3, stride, 1))
            y = b.conv(y, Layer("", inner, 4 * inner), relu=False)
            if block == 0:
                x = b.conv(x, Layer("", width, 4 * inner, 0, 1, stride), relu=False)
            x = b.node("Relu", b.node("Add", y, x))
            width = 4 * inner
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.file([3, 224, 224], b.linear(x, 2048, 1000, relu=False))


def _mobilenetv2(b: Builder) -> bytes:
    """MobileNetV2 at width 1: the 1x1 layers are pruned, stem, depthwise and the last layer stay dense."""

    def clip(y: str) -> str:
        return b.node("Clip", y, low, high)

    low, high = (f"c{v}" for v in (0, 6))
    b.weights += [numpy_helper.from_array(np.float32(v), n) for v, n in ((0, low), (6, high))]
    x = clip(b.conv("x", Layer("", 3, 32, 0, 3, 2, 1), relu=False, prune=False))
    width = 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, outputs, depth, first in plan:
        for block in range(depth):
            stride, inner = (first if block == 0 else 1), width * expand
            y = clip(b.conv(x, Layer("", width, inner), relu=False)) if expand > 1 else x
            w, bias = b.weight(inner, 1, 3, 3, prune=False), b.weight(inner)
            y = clip(
                b.node("Conv", y, w, bias, kernel_shape=[3, 3], group=inner, strides=[stride] * 2, pads=[1] * 4)
            )  # fmt: skip
            y = b.conv(y, Layer("", inner, outputs), relu=False)
            x = b.node("Add", x, y) if stride == 1 and width == outputs else y
            width = outputs
    x = clip(b.conv(x, Layer("", 320, 1280), relu=False))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.file([3, 224, 224], b.linear(x, 1280, 1000, relu=False, prune=False))


def _bert_layer(b: Builder) -> bytes:
    """One encoder layer of BERT-base on 128 tokens, as torch's exporter writes it (GELU and LayerNorm in pieces)."""
    tokens, width, heads, hidden = 128, 768, 12, 3072
    ones = {"sqrt2": 2**0.5, "one": 1.0, "half": 0.5, "root": (width // heads) ** 0.5, "two": 2.0, "eps": 1e-12}
    b.weights += [numpy_helper.from_array(np.float32(v), n) for n, v in ones.items()]
    b.weights.append(numpy_helper.from_array(np.array([0, tokens, heads, width // heads], np.int64), "split"))
    b.weights.append(numpy_helper.from_array(np.array([0, tokens, width], np.int64), "join"))

    def linear(x: str, inputs: int, outputs: int) -> str:
        # Kaiming's scale halves again: there is no Relu to take half of the energy away.
        w = b.weight(inputs, outputs, fan_in=2 * inputs, inputs_axis=0)
        return b.node("Add", b.node("MatMul", x, w), b.weight(outputs))

    def norm(x: str) -> str:
        d = b.node("Sub", x, b.node("ReduceMean", x, axes=[-1]))
        variance = b.node("ReduceMean", b.node("Pow", d, "two"), axes=[-1])
        y = b.node("Div", d, b.node("Sqrt", b.node("Add", variance, "eps")))
        scale = f"w{len(b.weights)}"
        b.weights.append(numpy_helper.from_array(np.ones(width, np.float32), scale))
        return b.node("Add", b.node("Mul", y, scale), b.weight(width))

    q, k, v = (b.node("Reshape", linear("x", width, width), "split") for _ in range(3))
    q, v = (b.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    score = b.node("Div", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 3, 1])), "root")
    y = b.node("MatMul", b.node("Softmax", score, axis=-1), v)
    y = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1, 3]), "join")
    x = norm(b.node("Add", linear(y, width, width), "x"))
    y = linear(x, width, hidden)
    gate = b.node("Add", b.node("Erf", b.node("Div", y, "sqrt2")), "one")
    y = b.node("Mul", b.node("Mul", y, gate), "half")
    return b.file([tokens, width], norm(b.node("Add", linear(y, hidden, width), x)))


BUILD = {"resnet50": _resnet50, "mobilenetv2": _mobilenetv2, "bert-layer": _bert_layer}
NETS = tuple(dict.fromkeys((*shapes.NETS, *BUILD)))


def net_file(name: str, density: float, seed: int = 0, block: Block = (1, 1)) -> bytes:
    """The whole net; what an architecture never prunes (stem, depthwise, head) stays dense."""
    return BUILD[name](Builder(density, seed, block)) if name in BUILD else shapes.net_file(name, density, seed, block)
