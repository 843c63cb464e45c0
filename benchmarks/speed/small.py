"""Twenty small nets as devices run them, at the shapes and with the operators of such nets; weights are random.

What an architecture never prunes (stems, depthwise layers, heads of few channels, recurrent layers) stays dense.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from parts import act, constant, conv, conv1, join, mean, pool, resize, separable, transposed
from shapes import Builder


def yolo_spp(b: Builder) -> bytes:
    """YOLOv3-tiny with spatial pyramid pooling, 256x256: LeakyRelu, pools of 5, 9 and 13, two scales."""
    x = conv(b, "x", 3, 16, 3, f="LeakyRelu", prune=False)
    for width in (16, 32, 64, 128):
        x = conv(b, pool(b, x, 2, 2), width, 2 * width, 3, f="LeakyRelu")
    route = x
    x = conv(b, pool(b, x, 2, 2), 256, 512, 3, f="LeakyRelu")
    x = conv(b, x, 512, 256, f="LeakyRelu")
    x = join(b, x, *(pool(b, x, k, 1, k // 2) for k in (5, 9, 13)))
    x = conv(b, x, 1024, 256, f="LeakyRelu")
    far = conv(b, conv(b, x, 256, 512, 3, f="LeakyRelu"), 512, 255, f="", prune=False)
    x = join(b, resize(b, conv(b, x, 256, 128, f="LeakyRelu")), route)
    near = conv(b, conv(b, x, 384, 256, 3, f="LeakyRelu"), 256, 255, f="", prune=False)
    flat = [b.node("Reshape", y, constant(b, [0, 255, -1])) for y in (far, near)]
    return b.file([3, 256, 256], b.node("Sigmoid", b.node("Concat", *flat, axis=2)))


def _c3(b: Builder, x: str, inputs: int, width: int, shortcut: bool = True) -> str:
    y = conv(b, x, inputs, width // 2, f="silu")
    z = conv(b, conv(b, y, width // 2, width // 2, f="silu"), width // 2, width // 2, 3, f="silu")
    y = b.node("Add", y, z) if shortcut else z
    return conv(b, join(b, y, conv(b, x, inputs, width // 2, f="silu")), width, width, f="silu")


def yolo_nano(b: Builder) -> bytes:
    """YOLOv5 at a quarter of the width, 320x320: SiLU, CSP blocks, three pools of 5 in a row, paths both ways."""
    x = conv(b, "x", 3, 16, (5, 5), 2, "silu", prune=False)
    kept = []
    for width in (32, 64, 128, 256):
        x = _c3(b, conv(b, x, width // 2, width, 3, 2, "silu"), width, width)
        kept.append(x)
    x = conv(b, x, 256, 128, f="silu")
    parts = [x]
    for _ in range(3):
        parts.append(pool(b, parts[-1], 5, 1, 2))
    x = conv(b, conv(b, join(b, *parts), 512, 256, f="silu"), 256, 128, f="silu")
    tops = [x]
    for width, skip in ((128, kept[2]), (64, kept[1])):
        x = _c3(b, join(b, resize(b, x), skip), 2 * width, width, shortcut=False)
        x = conv(b, x, width, 64, f="silu") if width == 128 else x
        tops.append(x)
    heads = [x]
    for width, top in ((64, tops[1]), (128, tops[0])):
        x = _c3(b, join(b, conv(b, x, width, width, 3, 2, "silu"), top), 2 * width, 2 * width, shortcut=False)
        heads.append(x)
    flat = [
        b.node("Reshape", conv(b, y, w, 255, f="", prune=False), constant(b, [0, 255, -1]))
        for w, y in zip((64, 128, 256), heads, strict=True)
    ]
    return b.file([3, 320, 320], b.node("Sigmoid", b.node("Concat", *flat, axis=2)))


def _shuffle(b: Builder, x: str, width: int, size: int) -> str:
    x = b.node("Reshape", x, constant(b, [-1, 2, width // 2, size, size]))
    x = b.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    return b.node("Reshape", x, constant(b, [-1, width, size, size]))


def nano_detector(b: Builder) -> bytes:
    """A ShuffleNetV2 of width 1 with light depthwise 5x5 heads at three scales, 320x320, as NanoDet."""
    f, x = "LeakyRelu", pool(b, conv(b, "x", 3, 24, 3, 2, "LeakyRelu", prune=False), 3, 2, 1)
    width, size, kept = 24, 80, []
    for outputs, depth in ((116, 4), (232, 8), (464, 4)):
        half, size = outputs // 2, size // 2
        left = conv(b, conv(b, x, width, width, 3, 2, "", group=width), width, half, f=f)
        y = conv(b, conv(b, x, width, half, f=f), half, half, 3, 2, "", group=half)
        x = _shuffle(b, join(b, left, conv(b, y, half, half, f=f)), outputs, size)
        for _ in range(depth - 1):
            split = constant(b, [half, half])
            left, y = b.several(2, "Split", x, split, axis=1)
            y = conv(b, conv(b, y, half, half, f=f), half, half, 3, 1, "", group=half)
            x = _shuffle(b, join(b, left, conv(b, y, half, half, f=f)), outputs, size)
        width = outputs
        kept.append(conv(b, x, outputs, 96, f=f))
    maps, x = [kept[2]], kept[2]
    for skip in (kept[1], kept[0]):
        x = b.node("Add", resize(b, x, 2, "linear"), skip)
        maps.append(x)
    heads = []
    for x in maps:
        for _ in range(2):
            x = separable(b, x, 96, 96, f=f, k=5)
        heads.append(b.node("Reshape", conv(b, x, 96, 112, f="", prune=False), constant(b, [0, 112, -1])))
    return b.file([3, 320, 320], b.node("Concat", *heads, axis=2))


def _bottleneck(b: Builder, x: str, width: int, kind: int) -> str:
    y = conv(b, x, width, width // 4, f="PRelu")
    inner = width // 4
    if kind == 1:
        y = conv(b, conv(b, y, inner, inner, (5, 1), f=""), inner, inner, (1, 5), f="PRelu")
    else:
        y = conv(b, y, inner, inner, 3, f="PRelu", dilation=max(1, kind))
    return act(b, b.node("Add", x, conv(b, y, inner, width, f="", damp=4)), "PRelu", width)


def road_segmentation(b: Builder) -> bytes:
    """ENet for roads, 256x448: maps of 128x224 at once, dilated and 5x1 kernels, transposed layers at the end."""
    x = join(b, conv(b, "x", 3, 13, 3, 2, "PRelu", prune=False), pool(b, "x", 2, 2))
    x = conv(b, pool(b, x, 2, 2), 16, 64, 3, f="PRelu")
    for _ in range(4):
        x = _bottleneck(b, x, 64, 0)
    x = conv(b, x, 64, 128, 3, 2, "PRelu")
    for kind in (0, 2, 1, 4, 0, 8, 1, 16):
        x = _bottleneck(b, x, 128, kind)
    x = transposed(b, x, 128, 64, 3, 2, "PRelu")
    x = _bottleneck(b, _bottleneck(b, x, 64, 0), 64, 0)
    x = _bottleneck(b, transposed(b, x, 64, 16, 3, 2, "PRelu"), 16, 0)
    return b.file([3, 256, 448], b.node("Softmax", transposed(b, x, 16, 4, 2, 2, ""), axis=1))


def portrait_unet(b: Builder) -> bytes:
    """A U-Net of 16 to 128 channels, 192x192: large maps, 2x2 transposed layers, joins."""
    x, kept = conv(b, "x", 3, 16, 3, prune=False), []
    for width in (16, 32, 64):
        x = conv(b, x, width, width, 3)
        kept.append((width, x))
        x = conv(b, pool(b, x, 2, 2), width, 2 * width, 3)
    for width, skip in reversed(kept):
        x = join(b, transposed(b, x, 2 * width, width, 2, 2, ""), skip)
        x = conv(b, conv(b, x, 2 * width, width, 3), width, width, 3)
    return b.file([3, 192, 192], b.node("Sigmoid", conv(b, x, 16, 1, f="", prune=False)))


def espcn(b: Builder) -> bytes:
    """ESPCN threefold: 5x5 to 64 maps of 180x320, Tanh, pixels moved at the end."""
    x = conv(b, "x", 1, 64, 5, f="Tanh", prune=False)
    x = conv(b, conv(b, x, 64, 32, 3, f="Tanh"), 32, 9, 3, f="", prune=False)
    return b.file([1, 180, 320], b.node("DepthToSpace", x, blocksize=3))


def fsrcnn(b: Builder) -> bytes:
    """FSRCNN twofold: 56 maps of 180x320 narrowed to 12, PReLU, a 9x9 transposed layer."""
    x = conv(b, conv(b, "x", 1, 56, 5, f="PRelu", prune=False), 56, 12, f="PRelu")
    for _ in range(4):
        x = conv(b, x, 12, 12, 3, f="PRelu")
    return b.file([1, 180, 320], transposed(b, conv(b, x, 12, 56, f="PRelu"), 56, 1, 9, 2, ""))


def _squeeze(b: Builder, x: str, width: int) -> str:
    y = conv(b, b.node("GlobalAveragePool", x), width, width // 4)
    return b.node("Mul", x, b.node("HardSigmoid", conv(b, y, width // 4, width, f=""), alpha=0.2, beta=0.5))


def _inverted(b: Builder, x: str, inputs: int, inner: int, outputs: int, k: int, s: int, f: str) -> str:
    y = conv(b, x, inputs, inner, f=f)
    y = _squeeze(b, conv(b, y, inner, inner, k, s, f, group=inner), inner)
    y = conv(b, y, inner, outputs, f="", damp=2)
    return b.node("Add", x, y) if s == 1 and inputs == outputs else y


def text_detector(b: Builder) -> bytes:
    """Differentiable binarization over half a MobileNetV3, 320x320: SE, HardSwish, four scales, 24 maps of 160x160."""
    x, kept = conv(b, "x", 3, 8, 3, 2, "HardSwish", prune=False), []
    plan = ((8, 8, 8, 3, 1), (8, 32, 16, 3, 2), (16, 40, 16, 3, 1), (16, 48, 24, 5, 2), (24, 120, 24, 5, 1))
    plan += ((24, 120, 56, 3, 2), (56, 200, 56, 3, 1), (56, 336, 80, 5, 2), (80, 480, 80, 5, 1))
    for i, (inputs, inner, outputs, k, s) in enumerate(plan):
        x = _inverted(b, x, inputs, inner, outputs, k, s, "Relu" if i < 5 else "HardSwish")
        if i in (2, 4, 6, 8):
            kept.append(conv(b, x, outputs, 96, f=""))
    x, parts = kept[3], [(kept[3], 8)]
    for skip, by in ((kept[2], 4), (kept[1], 2), (kept[0], 1)):
        x = b.node("Add", resize(b, x), skip)
        parts.append((x, by))
    joined = [resize(b, y, by) if by > 1 else y for y, by in ((conv(b, y, 96, 24, 3, f=""), by) for y, by in parts)]
    x = conv(b, join(b, *joined), 96, 24, 3)
    x = transposed(b, transposed(b, x, 24, 24), 24, 1, f="")
    return b.file([3, 320, 320], b.node("Sigmoid", x))


def text_lstm(b: Builder) -> bytes:
    """A CRNN: seven layers over a line of 32x128, two LSTMs in both directions, 37 signs."""
    x = pool(b, conv(b, "x", 1, 32, 3, prune=False), 2, 2)
    x = pool(b, conv(b, x, 32, 64, 3), 2, 2)
    x = conv(b, conv(b, x, 64, 128, 3), 128, 128, 3)
    x = b.node("MaxPool", x, kernel_shape=[2, 1], strides=[2, 1])
    x = conv(b, conv(b, x, 128, 256, 3), 256, 256, 3)
    x = b.node("MaxPool", x, kernel_shape=[4, 1], strides=[4, 1])
    x = b.node("Transpose", b.node("Squeeze", x, constant(b, [2])), perm=[2, 0, 1])
    for inputs in (256, 256):
        w = [b.weight(2, 4 * 128, n, prune=False, fan_in=4 * n, inputs_axis=2) for n in (inputs, 128)]
        y = b.node("LSTM", x, *w, hidden_size=128, direction="bidirectional")
        x = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1, 3]), constant(b, [32, -1, 256]))
    y = b.node("MatMul", x, b.weight(256, 37, prune=False, fan_in=256))
    return b.file([1, 32, 128], b.node("Transpose", y, perm=[1, 0, 2]))


def _attention(b: Builder, x: str, tokens: int, width: int, heads: int) -> str:
    """A layer of an encoder, LayerNorm first; the operators as today's exporters write them."""

    def linear(x: str, inputs: int, outputs: int) -> str:
        w = b.weight(inputs, outputs, fan_in=2 * inputs, inputs_axis=0)
        return b.node("Add", b.node("MatMul", x, w), b.weight(outputs))

    def norm(x: str) -> str:
        scale = constant(b, np.ones(width), np.float32)
        return b.node("LayerNormalization", x, scale, b.weight(width), axis=-1)

    y, split = norm(x), constant(b, [-1, tokens, heads, width // heads])
    q, k, v = (b.node("Reshape", linear(y, width, width), split) for _ in range(3))
    q, v = (b.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    score = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 3, 1]))
    score = b.node("Mul", score, constant(b, (width // heads) ** -0.5, np.float32))
    y = b.node("Transpose", b.node("MatMul", b.node("Softmax", score, axis=-1), v), perm=[0, 2, 1, 3])
    x = b.node("Add", x, linear(b.node("Reshape", y, constant(b, [-1, tokens, width])), width, width))
    y = linear(norm(x), width, 2 * width)
    y = b.node("Mul", y, b.node("Sigmoid", y))
    return b.node("Add", x, linear(y, 2 * width, width))


def text_attention(b: Builder) -> bytes:
    """A line of 32x256 as SVTR reads it: two strided layers, four encoder layers on 128 tokens, 97 signs."""
    x = conv(b, conv(b, "x", 3, 32, 3, 2, "silu", prune=False), 32, 64, 3, 2, "silu")
    x = conv(b, x, 64, 96, 3, 2, "silu")
    x = b.node("Transpose", b.node("Reshape", x, constant(b, [-1, 96, 128])), perm=[0, 2, 1])
    for _ in range(4):
        x = _attention(b, x, 128, 96, 4)
    return b.file([3, 32, 256], b.node("MatMul", x, b.weight(96, 97, prune=False, fan_in=96)))


def face_detector(b: Builder) -> bytes:
    """A light SSD for faces, 240x320, as UltraFace: separable layers from 16 channels, a block of dilated branches."""
    x, width, heads = conv(b, "x", 3, 16, 3, 2, prune=False), 16, []
    for i, (outputs, s) in enumerate(((32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1))):
        x, width = separable(b, x, width, outputs, s), outputs
        if i == 6:
            parts = [conv(b, conv(b, x, 64, 8), 8, 16, 3, f="", dilation=d) for d in (2, 3, 5)]
            x = b.node("Relu", b.node("Add", conv(b, join(b, *parts), 48, 64, f=""), conv(b, x, 64, 64, f="")))
    for outputs, s, depth, boxes in ((64, 1, 1, 3), (128, 2, 3, 2), (256, 2, 2, 3)):
        for i in range(depth):
            x, width = separable(b, x, width, outputs, s if i == 0 else 1), outputs
        y = conv(b, x, width, width, 3, group=width)
        y = conv(b, y, width, 6 * boxes, f="", prune=False)
        heads.append(b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 3, 1]), constant(b, [0, -1, 6])))
    return b.file([3, 240, 320], b.node("Softmax", b.node("Concat", *heads, axis=1), axis=2))


def face_near(b: Builder) -> bytes:
    """BlazeFace, 128x128: depthwise 5x5 layers of 24 to 96 channels, a max pool and padded channels beside strides."""
    x, width = conv(b, "x", 3, 24, 5, 2, prune=False), 24
    plan = ((24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1), (96, 2))
    for outputs, s in (*plan, (96, 1), (96, 1), (96, 1), (96, 1)):
        y = conv(b, conv(b, x, width, width, 5, s, "", group=width), width, outputs, f="", damp=4)
        x = pool(b, x, 2, 2) if s == 2 else x
        if outputs > width:
            x = b.node("Pad", x, constant(b, [0, 0, 0, 0, 0, outputs - width, 0, 0]))
        x, width = b.node("Relu", b.node("Add", x, y)), outputs
    y = b.node("Transpose", conv(b, x, 96, 102, f="", prune=False), perm=[0, 2, 3, 1])
    return b.file([3, 128, 128], b.node("Reshape", y, constant(b, [0, -1, 17])))


def low_light(b: Builder) -> bytes:
    """Zero-DCE, 192x256: seven layers of 32 maps with joins, then eight curves over the picture."""
    picture = b.node("Clip", "x", constant(b, 0, np.float32), constant(b, 1, np.float32))
    one = conv(b, picture, 3, 32, 3, prune=False)
    two = conv(b, one, 32, 32, 3)
    three = conv(b, two, 32, 32, 3)
    x = conv(b, join(b, three, conv(b, three, 32, 32, 3)), 64, 32, 3)
    x = conv(b, join(b, two, x), 64, 32, 3)
    x = conv(b, join(b, one, x), 64, 24, 3, f="Tanh", prune=False)
    parts = b.several(8, "Split", x, constant(b, [3] * 8), axis=1)
    y = picture
    for part in parts:
        y = b.node("Add", y, b.node("Mul", part, b.node("Sub", b.node("Mul", y, y), y)))
    return b.file([3, 192, 256], y)


def speech_separator(b: Builder) -> bytes:
    """A small Conv-TasNet on 0.5 s at 8 kHz: learned frames, 12 dilated depthwise blocks, GroupNorm of one group."""
    frames = conv1(b, b.node("Reshape", "x", constant(b, [-1, 1, 4000])), 1, 1, 1)
    frames = b.node("Relu", b.node("Conv", frames, b.weight(128, 1, 16, prune=False), kernel_shape=[16], strides=[8]))
    x = conv1(b, frames, 128, 64, 1)
    for i in range(12):
        y = conv1(b, x, 64, 128, 1, f="PRelu")
        for k in (0, 3):
            y = conv1(b, y, 1, 128, 3, f="PRelu", dilation=2 ** (i % 6)) if k else y
            y = b.node("Reshape", y, constant(b, [-1, 1, 128 * 499]))
            scale, shift = (constant(b, [v], np.float32) for v in (1.0, 0.0))
            y = b.node("InstanceNormalization", y, scale, shift, epsilon=1e-5)
            y = b.node("Reshape", y, constant(b, [-1, 128, 499]))
        x = b.node("Add", x, conv1(b, y, 128, 64, 1))
    mask = conv1(b, x, 64, 128, 1, f="Sigmoid")
    w = b.weight(128, 1, 16, prune=False, fan_in=256)
    y = b.node("ConvTranspose", b.node("Mul", frames, mask), w, kernel_shape=[16], strides=[8])
    return b.file([4000], y)


def speech_enhancement(b: Builder) -> bytes:
    """A mask from 100 frames of 161 bins, as NSNet: linear, two GRUs of 400, three linear layers."""

    def linear(x: str, inputs: int, outputs: int) -> str:
        w = b.weight(inputs, outputs, fan_in=inputs, inputs_axis=0)
        return b.node("Add", b.node("MatMul", x, w), b.weight(outputs))

    x = b.node("Transpose", linear("x", 161, 256), perm=[1, 0, 2])
    for inputs in (256, 256):
        w = [b.weight(1, 3 * 256, n, prune=False, fan_in=4 * n, inputs_axis=2) for n in (inputs, 256)]
        x = b.node("Squeeze", b.node("GRU", x, *w, hidden_size=256), constant(b, [1]))
    x = b.node("Relu", linear(b.node("Transpose", x, perm=[1, 0, 2]), 256, 400))
    x = b.node("Relu", linear(x, 400, 400))
    return b.file([100, 161], b.node("Mul", "x", b.node("Sigmoid", linear(x, 400, 161))))


def speech_quality(b: Builder) -> bytes:
    """DNSMOS: a spectrogram of 300 frames and 120 bands, four layers of 3x3 with pools, the maximum, three layers."""
    x = pool(b, conv(b, "x", 1, 32, 3, prune=False), 2, 2)
    x = pool(b, conv(b, x, 32, 32, 3), 2, 2)
    x = pool(b, conv(b, x, 32, 32, 3), 2, 2)
    x = b.node("Flatten", b.node("GlobalMaxPool", conv(b, x, 32, 64, 3)))
    x = b.linear(b.linear(x, 64, 128), 128, 64)
    return b.file([1, 300, 120], b.linear(x, 64, 3, relu=False, prune=False))


def keywords(b: Builder) -> bytes:
    """DS-CNN for 12 words: 49 frames of 10 cepstra, 10x4 kernel, four separable layers of 64."""
    w = b.weight(64, 1, 10, 4, prune=False)
    x = b.node("Conv", "x", w, b.weight(64), kernel_shape=[10, 4], strides=[2, 2], pads=[4, 1, 5, 1])
    x = b.node("Relu", x)
    for _ in range(4):
        x = separable(b, x, 64, 64)
    y = b.linear(mean(b, x), 64, 12, relu=False, prune=False)
    return b.file([1, 49, 10], b.node("Softmax", y, axis=1))


def keywords_long(b: Builder) -> bytes:
    """TC-ResNet8: 40 cepstra as channels of 101 frames, kernels of 9 along time, residual sums."""
    x, width = conv1(b, "x", 40, 16, 3, f="Relu"), 16
    for outputs in (24, 32, 48):
        y = conv1(b, conv1(b, x, width, outputs, 9, 2, "Relu"), outputs, outputs, 9)
        x, width = b.node("Relu", b.node("Add", y, conv1(b, x, width, outputs, 1, 2, "Relu"))), outputs
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.file([40, 101], b.linear(x, 48, 12, relu=False, prune=False))


def person_detector(b: Builder) -> bytes:
    """Is there a person: MobileNetV1 at a quarter of its width, 96x96."""
    x, width = conv(b, "x", 3, 8, 3, 2, prune=False), 8
    for outputs, s in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        x, width = separable(b, x, width, outputs, s), outputs
    y = b.linear(mean(b, x), 256, 2, relu=False, prune=False)
    return b.file([3, 96, 96], b.node("Softmax", y, axis=1))


def mlp(widths: Sequence[int]) -> Callable[[Builder], bytes]:
    """Linear layers with Relu between them."""

    def build(b: Builder) -> bytes:
        x = "x"
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            x = b.linear(x, inputs, outputs, relu=i + 2 < len(widths))
        return b.file([widths[0]], x)

    return build


BUILD: dict[str, Callable[[Builder], bytes]] = {
    "yolo-spp": yolo_spp,
    "yolo-nano": yolo_nano,
    "nano-detector": nano_detector,
    "road-segmentation": road_segmentation,
    "portrait-unet": portrait_unet,
    "espcn": espcn,
    "fsrcnn": fsrcnn,
    "text-detector": text_detector,
    "text-lstm": text_lstm,
    "text-attention": text_attention,
    "face-detector": face_detector,
    "face-near": face_near,
    "low-light": low_light,
    "speech-separator": speech_separator,
    "speech-enhancement": speech_enhancement,
    "speech-quality": speech_quality,
    "keywords": keywords,
    "keywords-long": keywords_long,
    "person-detector": person_detector,
    "anomaly-mlp": mlp((640, 128, 128, 128, 8, 128, 128, 128, 640)),
}
