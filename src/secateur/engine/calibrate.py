"""Measures by how much the cost models err on this machine: layers of every kind, timed where nets have them.

The layers stand one behind another in one file, each behind a step that has just written its input and before one that
reads its result, so that maps lie in the caches as in a net and weights do not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine.rates import MOST, Rates
from secateur.native import _native

Told = Callable[[int, int], None]  # passes done, passes in all
_PASSES, _REPEATS = 2, 7  # the quietest pass of a layer counts, the median of its repeats
_DENSITIES = (1.0, 0.1)


@dataclass(frozen=True)
class Layer:
    """A convolution over [channels, size, size], or with size 0 a product of `rows` rows."""

    channels: int
    outputs: int
    size: int = 0
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    rows: int = 1

    @property
    def weight(self) -> tuple[int, ...]:
        if self.size == 0:
            return self.channels, self.outputs
        return self.outputs, 1 if self.depthwise else self.channels, self.kernel, self.kernel

    @property
    def input(self) -> tuple[int, ...]:
        return (1, self.channels, self.size, self.size) if self.size else (self.rows, self.channels)


# Maps on both sides of a second cache of 0.25 to 2 MB, of whole vectors and of 7 x 7.
_LAYERS = (
    *(Layer(*s) for s in ((64, 64, 56), (64, 256, 56), (256, 64, 56), (24, 144, 56), (512, 128, 28), (128, 512, 28))),
    *(Layer(*s) for s in ((192, 32, 28), (1024, 256, 14), (384, 96, 14), (512, 2048, 7), (960, 160, 7))),
    *(Layer(*s, 3) for s in ((64, 64, 56), (64, 128, 32), (128, 128, 28), (256, 256, 14), (512, 512, 7))),
    *(Layer(*s, 3) for s in ((16, 16, 32), (64, 64, 8), (512, 512, 4))),
    *(Layer(*s, 3, 2) for s in ((128, 128, 56), (32, 64, 16))),
    *(Layer(768, n, rows=128) for n in (768, 3072)),
    *(Layer(n, m) for n, m in ((784, 300), (256, 384), (400, 120), (2048, 1000))),
)
_FULL = (  # what is hardly ever pruned
    *(Layer(3, 32, 224, 3, 2), Layer(3, 64, 224, 7, 2), Layer(3, 16, 32, 3), Layer(3, 64, 32, 3)),
    *(
        Layer(n, n, size, 3, stride, True)
        for n, size, stride in ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1))
    ),
    *(Layer(n, n, size, 3, stride, True) for n, size, stride in ((384, 14, 1), (576, 14, 2), (960, 7, 1))),
)


def measured(told: Told = lambda done, total: None) -> Rates:
    """Factors of this machine by kernel and kind of layer, by kernel, and of all (`rates.Rates`); a few seconds."""
    files = [_file(False), _file(True)]
    found: dict[tuple[int, str], tuple[str, float]] = {}
    total = _PASSES * len(files)
    told(0, total)
    for i, file in enumerate(files):
        # Without rates: what is wanted is how far the models themselves are off.
        session = _native.Session(file, 1, rates={})
        for at in range(_PASSES):
            for step in session._explain(1, _REPEATS):
                if step["predicted_us"]:
                    key, ratio = (i, step["node"]), step["time_us"] / step["predicted_us"]
                    found[key] = (step["rate"], min(ratio, found.get(key, ("", ratio))[1]))
            told(i * _PASSES + at + 1, total)
    return _means(list(found.values()))


def _means(found: list[tuple[str, float]]) -> Rates:
    """Geometric means of the ratios measured : predicted, from the finest group to all.

    And of each operator and kind the worst kernel's: what kernels that were not timed there are taken to need at least,
    or the mean of others would make them look better than all that were.
    """
    groups = defaultdict[str, list[float]](list)
    for rate, ratio in found:
        for group in (rate, rate.partition("/")[0], ""):
            groups[group].append(math.log(min(max(ratio, 1 / MOST), MOST)))
    means = {name: round(math.exp(sum(logs) / len(logs)), 3) for name, logs in groups.items()}
    for rate in {rate for rate, _ in found}:
        kernel, _, kind = rate.partition("/")
        worst = f"{kernel.partition('_')[0]}/{kind}"
        means[worst] = max(means[rate], means.get(worst, 0.0))
    return dict(sorted(means.items()))


def _file(integers: bool) -> bytes:
    """All layers in one graph, at all densities; in int8 on request."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, inputs, outputs, constants = [], [], [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    scale, zero = constant("scale", np.float32(0.02)), constant("zero", np.uint8(128))
    weight_zero = constant("weight_zero", np.int8(0))
    for k, (layer, density) in enumerate(_cases()):
        x, w, y, out = f"x{k}", _weight(layer, density, integers, rng), f"y{k}", f"out{k}"
        inputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, layer.input))
        outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, None))
        pad = layer.kernel // 2
        options: dict[str, Any] = {}
        if layer.size:
            options = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [pad] * 4}
            options["group"] = layer.channels if layer.depthwise else 1
        name, fresh = constant(f"w{k}", w), f"fresh{k}"
        if integers:
            nodes.append(helper.make_node("QuantizeLinear", [x, scale, zero], [fresh]))
            given = [fresh, scale, zero, name, scale, weight_zero, scale, zero]
            kind = "QLinearConv" if layer.size else "QLinearMatMul"
            nodes.append(helper.make_node(kind, given, [f"{y}_q"], name=y, **options))
            nodes.append(helper.make_node("DequantizeLinear", [f"{y}_q", scale, zero], [y]))
        else:
            nodes.append(helper.make_node("Relu", [x], [fresh]))
            nodes.append(helper.make_node("Conv" if layer.size else "MatMul", [fresh, name], [y], name=y, **options))
        nodes.append(helper.make_node("ReduceMax", [y], [out], keepdims=0))
    graph = helper.make_graph(nodes, "calibration", inputs, outputs, constants)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def _cases() -> Iterator[tuple[Layer, float]]:
    for layer in _LAYERS:
        for density in _DENSITIES:
            yield layer, density
    for layer in _FULL:
        yield layer, 1.0


def _weight(layer: Layer, density: float, integers: bool, rng: np.random.Generator) -> NDArray[Any]:
    """Random; zeros anywhere, or in 1x4 blocks of input channels where integers run them."""
    shape = layer.weight
    axis = 0 if layer.size == 0 else 1
    at_once = 4 if integers and shape[axis] % 4 == 0 else 1
    coarse = tuple(n // at_once if a == axis else n for a, n in enumerate(shape))
    kept = np.repeat(rng.random(coarse) < density, at_once, axis)
    if integers:
        return np.where(kept, rng.integers(1, 100, shape) * rng.choice([-1, 1], shape), 0).astype(np.int8)
    return (rng.standard_normal(shape) * kept / math.sqrt(shape[axis])).astype(np.float32)
