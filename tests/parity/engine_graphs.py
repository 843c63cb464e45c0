"""Small ONNX graphs for the engine's tests: builders, a seeded generator, and the tolerance float32 allows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EPS = float(np.finfo(np.float32).eps)


class Net:
    """Builds one graph; every method adds a node and returns the name of its output."""

    def __init__(self, rng: np.random.Generator, opset: int = 17) -> None:
        self.rng = rng
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}
        self.n = 0

    def name(self, stem: str) -> str:
        self.n += 1
        return f"{stem}{self.n}"

    def input(self, shape: tuple[int, ...], declared: tuple[int | str | None, ...] | None = None) -> str:
        name = self.name("x")
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(declared or shape)))
        self.feeds[name] = self.rng.standard_normal(shape).astype(np.float32)
        return name

    def const(self, value: np.ndarray, stem: str = "c") -> str:
        name = self.name(stem)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int, density: float = 1.0, scale: float | None = None) -> str:
        fan = int(np.prod(shape[1:])) or 1
        w = self.rng.standard_normal(shape) * (scale if scale is not None else 1 / np.sqrt(fan))
        w = np.where(self.rng.random(shape) < density, w, 0)
        return self.const(w.astype(np.float32), "w")

    def node(self, op: str, *inputs: str, outputs: int = 1, **attrs: object) -> str:
        names = [self.name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=self.name(f"node_{op}"), **attrs))
        return names[0]

    def model(self, *outputs: str) -> bytes:
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        # Output ranks and shapes come from inference; ONNX Runtime wants none declared wrongly.
        proto = onnx.shape_inference.infer_shapes(proto)
        return proto.SerializeToString()


def shape_of(model: bytes, value: str) -> tuple[int, ...]:
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    for info in (*proto.graph.value_info, *proto.graph.output, *proto.graph.input):
        if info.name == value:
            return tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    raise KeyError(value)


def random_net(seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A random net of supported operators: convolutions of all kinds, pools, branches, a dense head."""
    rng = np.random.default_rng(seed)
    net = Net(rng, opset=int(rng.choice([11, 13, 17, 18, 21])))
    one_d = rng.random() < 0.2
    batch, channels = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    size = [int(rng.integers(6, 21)) for _ in range(1 if one_d else 2)]
    value = net.input((batch, channels, *size))
    outputs: list[str] = []
    spatial = len(size)

    def conv(x: str, c: int, s: list[int]) -> tuple[str, int, list[int]]:
        depthwise = rng.random() < 0.2
        groups = c if depthwise else (2 if c % 2 == 0 and rng.random() < 0.2 else 1)
        out = c * int(rng.integers(1, 3)) if depthwise else groups * int(rng.integers(1, 13))
        kernel = [int(rng.integers(1, min(6, n + 1))) for n in s]
        pads = [int(rng.integers(0, k)) for k in kernel] + [int(rng.integers(0, k)) for k in kernel]
        stride = [int(rng.integers(1, 3)) for _ in s]
        dilation = [int(rng.integers(1, 3)) if rng.random() < 0.3 else 1 for _ in s]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        room = [n + pads[i] + pads[i + spatial] - reach[i] for i, n in enumerate(s)]
        if min(room) < 0:
            dilation, room = [1] * spatial, [n + pads[i] + pads[i + spatial] - kernel[i] for i, n in enumerate(s)]
        density = float(rng.choice([1.0, 0.5, 0.1, 0.02]))
        w = net.weight(out, c // groups, *kernel, density=density)
        args = [x, w] + ([net.weight(out, scale=1.0)] if rng.random() < 0.7 else [])
        y = net.node(
            "Conv", *args, group=groups, kernel_shape=kernel, pads=pads, strides=stride, dilations=dilation
        )  # fmt: skip
        return y, out, [r // st + 1 for r, st in zip(room, stride, strict=True)]

    def norm(x: str, c: int) -> str:
        return net.node(
            "BatchNormalization", x, net.weight(c, scale=1.0), net.weight(c, scale=1.0), net.weight(c, scale=1.0),
            net.const(rng.uniform(0.3, 2, c).astype(np.float32)), epsilon=1e-5,
        )  # fmt: skip

    def act(x: str) -> str:
        kind = rng.integers(0, 6)
        if kind == 0:
            return net.node("Relu", x)
        if kind == 1:
            return net.node("Clip", x, net.const(np.float32(-0.5)), net.const(np.float32(1.5)))
        if kind == 2:
            return net.node("LeakyRelu", x, alpha=0.1)
        return net.node(["Sigmoid", "Tanh", "Relu"][int(kind) - 3], x)

    for _ in range(int(rng.integers(1, 6))):
        kind = rng.integers(0, 10)
        if kind <= 4:
            value, channels, size = conv(value, channels, size)
            if rng.random() < 0.4:
                value = norm(value, channels)
            if rng.random() < 0.3:
                # A residual branch of the same shape: 1x1 convolution of the same value.
                side = net.node("Conv", value, net.weight(channels, channels, *([1] * spatial), density=0.3))
                value = net.node("Add", side, value) if rng.random() < 0.5 else net.node("Add", value, side)
            if rng.random() < 0.7:
                value = act(value)
        elif kind == 5 and min(size) >= 3:
            op = "MaxPool" if rng.random() < 0.6 else "AveragePool"
            k = int(rng.integers(2, 4))
            attrs: dict[str, object] = {"kernel_shape": [k] * spatial, "strides": [2] * spatial}
            if rng.random() < 0.4:
                attrs["pads"] = [int(rng.integers(0, k)) for _ in range(2 * spatial)]
            if op == "AveragePool":
                attrs["count_include_pad"] = int(rng.integers(0, 2))
            pads = attrs.get("pads", [0] * (2 * spatial))
            size = [(n + pads[i] + pads[i + spatial] - k) // 2 + 1 for i, n in enumerate(size)]  # type: ignore[index]
            value = net.node(op, value, **attrs)
        elif kind == 6:
            c = net.weight(channels, *([1] * spatial), scale=1.0)
            value = net.node(str(rng.choice(["Mul", "Add", "Sub"])), value, c)
        elif kind == 7:
            value = net.node("Concat", value, act(value), axis=1)
            channels *= 2
        elif kind == 8:
            pads = [0, 0] + [int(v) for v in rng.integers(0, 3, spatial)]
            pads = pads + [0, int(rng.integers(0, 3))] + [int(v) for v in rng.integers(0, 3, spatial)]
            value = net.node("Pad", value, net.const(np.array(pads, np.int64)), net.const(np.float32(0.0)))
            channels += pads[spatial + 3]
            size = [n + pads[2 + i] + pads[spatial + 4 + i] for i, n in enumerate(size)]
        elif kind == 9 and min(size) >= 4:
            starts, axes = np.zeros(spatial, np.int64), np.arange(2, 2 + spatial, dtype=np.int64)
            ends, steps = np.full(spatial, 2**62, np.int64), np.full(spatial, 2, np.int64)
            value = net.node("Slice", value, *(net.const(v) for v in (starts, ends, axes, steps)))
            size = [(n + 1) // 2 for n in size]
        if rng.random() < 0.15:
            outputs.append(value)

    head = rng.integers(0, 4)
    if head == 0:
        value = net.node("Flatten", net.node("GlobalAveragePool", value), axis=1)
        features = channels
    elif head == 1 and net.opset < 18:
        value = net.node("ReduceMean", value, axes=list(range(2, 2 + spatial)), keepdims=0)
        features = channels
    elif head == 2:
        value = net.node("Reshape", value, net.const(np.array([batch, -1], np.int64)))
        features = channels * int(np.prod(size))
    else:
        value = net.node("Flatten", value, axis=1)
        features = channels * int(np.prod(size))
    for _ in range(int(rng.integers(1, 3))):
        out = int(rng.integers(1, 40))
        density = float(rng.choice([1.0, 0.3, 0.05]))
        if rng.random() < 0.5:
            w = net.weight(out, features, density=density)
            args = [value, w] + ([net.weight(out, scale=1.0)] if rng.random() < 0.7 else [])
            value = net.node("Gemm", *args, transB=1, alpha=float(rng.choice([1.0, 0.5])))
        else:
            value = net.node("MatMul", value, net.weight(features, out, density=density, scale=features**-0.5))
            if rng.random() < 0.7:
                value = net.node("Add", value, net.weight(out, scale=1.0))
        features = out
        if rng.random() < 0.6:
            value = act(value)
    if rng.random() < 0.4:
        value = net.node(str(rng.choice(["Softmax", "LogSoftmax"])), value, axis=1)
    outputs = [o for o in dict.fromkeys(outputs) if o != value and o not in net.feeds]
    return net.model(value, *outputs), net.feeds


def tolerance(
    run, model: bytes, feeds: dict[str, np.ndarray], outputs: list[np.ndarray], trials: int = 3
) -> list[float]:
    """What float32 rounding may change, per output, found by perturbing what rounding perturbs.

    Inputs and every float constant are multiplied by 1 +- eps at random (each product of the net carries at least such
    an error). 32 times the largest change seen, for the rounding of intermediate sums (their number of terms is below
    2,000 here, so the error of a sum grows by less than sqrt(2000) = 45 over one product's), plus 64 eps of the size.
    """
    proto = onnx.load_from_string(model)
    rng = np.random.default_rng(0)
    worst = [0.0] * len(outputs)
    for _ in range(trials):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for t in copy.graph.initializer:
            if t.data_type == TensorProto.FLOAT:
                a = numpy_helper.to_array(t)
                t.CopyFrom(numpy_helper.from_array(_jiggle(a, rng), t.name))
        moved = {k: _jiggle(v, rng) for k, v in feeds.items()}
        for i, (a, b) in enumerate(zip(outputs, run(copy.SerializeToString(), moved), strict=True)):
            if a.size:
                worst[i] = max(worst[i], float(np.max(np.abs(a - b))))
    return [32 * w + 64 * EPS * float(np.max(np.abs(y), initial=0)) for w, y in zip(worst, outputs, strict=True)]


def _jiggle(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if a.dtype != np.float32:
        return a
    return (a * (1 + EPS * rng.choice([-1, 0, 1], a.shape)).astype(np.float32)).astype(np.float32)
