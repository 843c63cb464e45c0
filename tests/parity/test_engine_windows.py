"""Pools, transposed and depthwise convolutions, Resize and Softmax at odd sizes, against ONNX Runtime at every ISA."""

from typing import Any

import numpy as np
import pytest

from secateur.engine import InferenceSession, isas

from .engine_graphs import Net
from .test_engine_random import run_ort

Dims = tuple[int, ...]
# name: operator, input, attributes, constant inputs (shapes of drawn weights, or arrays)
CASES: dict[str, tuple[str, Dims, dict[str, Any], list[Any]]] = {}


def case(name: str, op: str, shape: Dims, *constants: Any, **attrs: Any) -> None:
    CASES[name] = op, shape, attrs, list(constants)


for k in (5, 9, 13):
    case(f"max {k}", "MaxPool", (2, 3, 20, 21), kernel_shape=[k, k], pads=[k // 2] * 4)
case("max 13 small", "MaxPool", (1, 2, 7, 5), kernel_shape=[13, 13], pads=[6] * 4)
case("max wide", "MaxPool", (1, 2, 40, 700), kernel_shape=[9, 11], pads=[4, 5, 4, 5])
case("max dilated", "MaxPool", (1, 2, 31, 33), kernel_shape=[9, 9], dilations=[2, 3], pads=[3] * 4)
case("max ceil", "MaxPool", (1, 3, 30, 31), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
case("max 1-D", "MaxPool", (2, 3, 301), kernel_shape=[8], pads=[3, 4])
case("average", "AveragePool", (1, 3, 29, 31), kernel_shape=[3, 3], pads=[1] * 4)
case("average, padding counts", "AveragePool", (1, 3, 29, 31), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
case("average stride 3", "AveragePool", (1, 3, 29, 31), kernel_shape=[4, 5], strides=[3, 3], pads=[2, 1, 0, 3])
case("average whole", "AveragePool", (2, 5, 7, 7), kernel_shape=[7, 7])
for k, s, p in ((2, 2, 0), (4, 2, 1), (3, 2, 1), (5, 3, 2), (3, 1, 1), (2, 3, 0)):
    window = {"strides": [s, s], "pads": [p] * 4}
    case(f"transposed {k} / {s}", "ConvTranspose", (2, 6, 9, 11), (6, 5, k, k), (5,), **window)
    case(f"transposed {k} / {s} of groups", "ConvTranspose", (1, 6, 9, 11), (6, 2, k, k), group=3, **window)
    case(f"transposed {k} / {s} depthwise", "ConvTranspose", (1, 6, 9, 17), (6, 1, k, k), (6,), group=6, **window)
case("transposed 1-D", "ConvTranspose", (1, 4, 31), (4, 3, 4), (3,), strides=[2], pads=[1, 1])
case("transposed longer", "ConvTranspose", (1, 4, 7, 8), (4, 3, 3, 3), (3,), strides=[2, 2], output_padding=[1, 1])
case("transposed strides 2, 1", "ConvTranspose", (1, 4, 7, 8), (4, 3, 3, 3), (3,), strides=[2, 1], pads=[1, 0, 0, 1])
case("transposed dilated", "ConvTranspose", (1, 4, 7, 8), (4, 3, 3, 3), strides=[2, 2], dilations=[2, 2])
case("transposed same", "ConvTranspose", (1, 4, 7, 8), (4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 2)):
    window = {"strides": [s, s], "pads": [k // 2] * 4}
    case(f"depthwise {k} / {s}", "Conv", (1, 5, 23, 37), (5, 1, k, k), (5,), group=5, **window)
    case(f"two of each channel {k} / {s}", "Conv", (1, 4, 10, 9), (8, 1, k, k), group=4, **window)
for grid in ("asymmetric", "half_pixel", "align_corners"):
    for mode in ("nearest", "linear"):
        attrs = {"mode": mode, "coordinate_transformation_mode": grid}
        for scale in ((2, 2), (3, 1.5), (0.5, 0.5)):
            scales = np.array([1, 1, *scale], np.float32)
            case(f"{mode} {grid} {scale}", "Resize", (1, 3, 10, 22), None, scales, **attrs)
case("nearest twice", "Resize", (2, 3, 9, 70), None, np.array([1, 1, 2, 2], np.float32), mode="nearest",
     coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
case("linear wide", "Resize", (1, 1, 5, 700), None, np.array([1, 1, 2, 2], np.float32), mode="linear")
for axis in (1, 2, 3):
    case(f"softmax {axis}", "Softmax", (2, 21, 33, 35), axis=axis)
case("softmax of many", "Softmax", (2, 600, 9), axis=1)


@pytest.mark.parametrize("name", CASES)
def test_as_onnxruntime_has_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, shape, attrs, constants = CASES[name]
    net = Net(np.random.default_rng(9), opset=17)
    inputs = [net.input(shape)]
    for c in constants:
        inputs.append("" if c is None else net.const(c) if isinstance(c, np.ndarray) else net.weight(*c))
    model = net.model(net.node(op, *inputs, **attrs))
    (want,) = run_ort(model, net.feeds)
    for isa in isas():
        monkeypatch.setenv("SECATEUR_ISA", isa)
        for threads in (1, 2):
            (got,) = InferenceSession(model, threads=threads, fallback=None).run(None, net.feeds)
            assert got.shape == want.shape, isa
            assert np.max(np.abs(got - want)) <= (0 if op == "MaxPool" else 3e-6 * (1 + np.max(np.abs(want)))), isa
