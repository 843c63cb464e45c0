"""Layers that the small nets (small.py) are put together from, on a Builder: padded, with what follows them."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper
from shapes import Builder

Size = int | tuple[int, int]


def constant(b: Builder, value: object, dtype: type = np.int64) -> str:
    name = f"w{len(b.weights)}"
    b.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def act(b: Builder, x: str, name: str, channels: int, rank: int = 2) -> str:
    """Relu, LeakyRelu, silu, PRelu, any operator of one input, or nothing."""
    if not name:
        return x
    if name == "silu":
        return b.node("Mul", x, b.node("Sigmoid", x))
    if name == "PRelu":
        return b.node("PRelu", x, constant(b, np.full([channels] + [1] * rank, 0.2), np.float32))
    return b.node(name, x, **({"alpha": 0.1} if name == "LeakyRelu" else {}))


def conv(
    b: Builder,
    x: str,
    inputs: int,
    outputs: int,
    k: Size = 1,
    s: int = 1,
    f: str = "Relu",
    group: int = 1,
    dilation: int = 1,
    prune: bool = True,
    damp: int = 1,
) -> str:
    """A padded convolution of images with a bias and what follows it; `k` is one number or two.

    `damp` makes a branch smaller whose result is added to its input, as training does: sums of many would grow.
    """
    kernel = (k, k) if isinstance(k, int) else k
    fan_in = damp * damp * inputs // group * kernel[0] * kernel[1]
    w = b.weight(outputs, inputs // group, *kernel, prune=prune and group == 1, fan_in=fan_in)
    pads = [dilation * (n // 2) for n in kernel] * 2
    attrs = {"kernel_shape": kernel, "strides": [s, s], "pads": pads, "group": group, "dilations": [dilation] * 2}
    return act(b, b.node("Conv", x, w, b.weight(outputs), **attrs), f, outputs)


def conv1(b: Builder, x: str, inputs: int, outputs: int, k: int, s: int = 1, f: str = "", dilation: int = 1) -> str:
    """The same of sequences; depthwise where `inputs` is 1."""
    depthwise = inputs == 1 and outputs > 1
    w = b.weight(outputs, inputs, k, prune=not depthwise)
    attrs = {"group": outputs if depthwise else 1, "dilations": [dilation]}
    y = b.node("Conv", x, w, b.weight(outputs), kernel_shape=[k], strides=[s], pads=[dilation * (k // 2)] * 2, **attrs)
    return act(b, y, f, outputs, 1)


def separable(b: Builder, x: str, inputs: int, outputs: int, s: int = 1, f: str = "Relu", k: int = 3) -> str:
    return conv(b, conv(b, x, inputs, inputs, k, s, f, group=inputs), inputs, outputs, f=f)


def pool(b: Builder, x: str, k: int, s: int, pad: int = 0) -> str:
    return b.node("MaxPool", x, kernel_shape=[k, k], strides=[s, s], pads=[pad] * 4)


def transposed(b: Builder, x: str, inputs: int, outputs: int, k: int = 2, s: int = 2, f: str = "Relu") -> str:
    w = b.weight(inputs, outputs, k, k, fan_in=inputs * k * k // (s * s), prune=False)
    more = {"pads": [(k - s + 1) // 2] * 4, "output_padding": [(k - s) % 2] * 2}
    y = b.node("ConvTranspose", x, w, b.weight(outputs), kernel_shape=[k, k], strides=[s, s], **more)
    return act(b, y, f, outputs)


def resize(b: Builder, x: str, by: int = 2, mode: str = "nearest") -> str:
    scales = constant(b, [1, 1, by, by], np.float32)
    grid = "asymmetric" if mode == "nearest" else "half_pixel"
    more = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return b.node("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=grid, **more)


def join(b: Builder, *parts: str) -> str:
    return b.node("Concat", *parts, axis=1)


def mean(b: Builder, x: str) -> str:
    return b.node("Flatten", b.node("GlobalAveragePool", x))
