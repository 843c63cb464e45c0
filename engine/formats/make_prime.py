"""Makes prime.inc: the networks that every graph coder has read before its first bit (docs/format.md, "Priming").

Run it only to make a new major version of the format: the bytes are part of the format.

    python engine/formats/make_prime.py        (in a tree whose native module is built; needs the onnx package)
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A chain of nodes with named constants, as an exporter writes it."""

    def __init__(self, name: str, shape: list[int | str], out: str = "output", classes: int = 10) -> None:
        self.nodes: list[object] = []
        self.constants: dict[str, np.ndarray] = {}
        self.at = name
        self.inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        self.outputs = [helper.make_tensor_value_info(out, TensorProto.FLOAT, [shape[0], classes])]
        self.out = out

    def add(self, op: str, *inputs: str, last: bool = False, source: str | None = None, **attributes: object) -> str:
        """One node behind the current value."""
        out = self.out if last else f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [source or self.at, *inputs], [out], **attributes))
        self.at = out
        return out

    def weight(self, name: str, *dims: int, dtype: str = "float32") -> str:
        """A constant of zeros: only its name, dtype and shape matter."""
        self.constants[name] = np.zeros(dims, dtype)
        return name

    def conv(self, name: str, n_out: int, n_in: int, k: int, bias: bool = True, **attributes: object) -> str:
        names = [self.weight(f"{name}.weight", n_out, n_in, k, k)]
        if bias:
            names.append(self.weight(f"{name}.bias", n_out))
        return self.add("Conv", *names, **attributes)

    def norm(self, name: str, n: int) -> str:
        parts = ("weight", "bias", "running_mean", "running_var")
        return self.add("BatchNormalization", *(self.weight(f"{name}.{p}", n) for p in parts))

    def linear(self, name: str, n_out: int, n_in: int, last: bool = False) -> str:
        weight, bias = self.weight(f"{name}.weight", n_out, n_in), self.weight(f"{name}.bias", n_out)
        return self.add("Gemm", weight, bias, last=last, transB=1)

    def pool(self, k: int = 2) -> str:
        return self.add("MaxPool", kernel_shape=[k, k], strides=[k, k])

    def bytes(self, opset: int = 18, ir: int = 8) -> bytes:
        tensors = [numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, tensors)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString()


def quantised() -> Net:
    n = Net("input", ["batch", 3, 32, 32])
    n.add("QuantizeLinear", n.weight("input_scale"), n.weight("input_zero_point", dtype="uint8"))
    n.add("DequantizeLinear", "input_scale", "input_zero_point")
    x = n.at
    w = n.add("DequantizeLinear", n.weight("conv1.weight_scale"), n.weight("conv1.weight_zero_point", dtype="int8"),
              source=n.weight("conv1.weight_quantized", 16, 3, 3, 3, dtype="int8"))  # fmt: skip
    n.add("Conv", w, n.weight("conv1.bias", 16), source=x, pads=[1, 1, 1, 1])
    n.add("Relu")
    n.add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    n.add("Reshape", n.weight("shape", 2, dtype="int64"))
    n.add("MatMul", n.weight("fc.weight", 4096, 10))
    n.add("Add", n.weight("fc.bias", 10))
    n.add("Softmax", last=True, axis=-1)
    return n


def mobile() -> Net:
    n = Net("input", ["N", 3, 224, 224], "logits", 1000)
    n.conv("features.0.0", 32, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    n.add("Clip", n.weight("min"), n.weight("max"))
    n.conv("features.1.conv.0.0", 32, 1, 3, pads=[1, 1, 1, 1], group=32)
    n.add("Clip", "min", "max")
    a = n.conv("features.1.conv.1", 16, 32, 1)
    n.conv("features.2.conv.0.0", 96, 16, 1)
    n.add("Sigmoid")
    n.conv("features.2.conv.2", 16, 96, 1)
    n.add("Add", a)
    n.add("GlobalAveragePool")
    n.add("Flatten")
    n.linear("classifier.1", 1000, 1280, last=True)
    return n


def vgg(bias: bool) -> Net:
    n = Net("x" if bias else "input", ["batch", 3, 32, 32])
    n_in, at = 3, 0
    for n_out in (64, 64, 0, 128, 128, 0, 256):
        if n_out == 0:
            n.pool()
            at += 1
            continue
        n.conv(f"features.{at}", n_out, n_in, 3, bias, pads=[1, 1, 1, 1])
        if not bias:
            n.norm(f"features.{at + 1}", n_out)
        n.add("Relu")
        n_in, at = n_out, at + (2 if bias else 3)
    n.pool()
    n.add("Flatten")
    n.linear("classifier", 10, 512, last=True)
    return n


def resnet(bias: bool) -> Net:
    n = Net("x", ["batch", 3, 32, 32])
    n.conv("conv1", 16, 3, 3, bias, pads=[1, 1, 1, 1])
    if not bias:
        n.norm("bn1", 16)
    skip = n.add("Relu")
    n_in = 16
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            more = {"strides": [2, 2]} if stage > 1 and block == 0 else {}
            n.conv(f"{name}.conv1", width, n_in, 3, bias, pads=[1, 1, 1, 1], **more)
            if not bias:
                n.norm(f"{name}.bn1", width)
            n.add("Relu")
            n.conv(f"{name}.conv2", width, width, 3, bias, pads=[1, 1, 1, 1])
            if not bias:
                n.norm(f"{name}.bn2", width)
            n.add("Add", skip)
            skip = n.add("Relu")
            n_in = width
    n.add("GlobalAveragePool")
    n.add("Flatten")
    n.linear("linear" if bias else "fc", 10, 64, last=True)
    return n


def mlp(widths: list[int], names: str = "fc") -> Net:
    n = Net("input", ["batch", 1, 28, 28] if widths[0] == 784 else ["batch", widths[0]], classes=widths[-1])
    if widths[0] == 784:
        n.add("Flatten")
    for i in range(1, len(widths)):
        name = f"{names}{i}" if names == "fc" else f"{names}{2 * (i - 1)}"
        n.linear(name, widths[i], widths[i - 1], last=i == len(widths) - 1)
        if i < len(widths) - 1:
            n.add("Relu")
    return n


def digits() -> Net:
    n = Net("input", ["batch", 1, 8, 8])
    n_in = 1
    for i, n_out in enumerate((32, 64, 128), 1):
        n.conv(f"conv{i}", n_out, n_in, 3, pads=[1, 1, 1, 1])
        n.add("Relu")
        if i > 1:
            n.pool()
        n_in = n_out
    n.add("Flatten")
    n.linear("fc1", 128, 512)
    n.add("Relu")
    n.linear("fc2", 10, 128, last=True)
    return n


def lenet(relu: bool, c1: int, c2: int, hidden: int) -> Net:
    n = Net("input", ["batch", 1, 28, 28])
    for i, (n_out, n_in) in enumerate(((c1, 1), (c2, c1)), 1):
        n.conv(f"conv{i}", n_out, n_in, 5)
        if relu:
            n.add("Relu")
        n.pool()
    n.add("Flatten")
    n.linear("fc1", hidden, c2 * 16)
    n.add("Relu")
    n.linear("fc2", 10, hidden, last=True)
    return n


def networks() -> list[Net]:
    """In the order in which the models read them: what is most alike small nets comes last."""
    return [
        quantised(), mobile(), vgg(True), vgg(False), resnet(True), resnet(False), mlp([64, 32, 10], "net."),
        mlp([20, 64, 64, 1]), mlp([784, 300, 100, 10]), digits(), lenet(False, 20, 50, 500), lenet(True, 16, 40, 120),
        lenet(True, 12, 30, 100),
    ]  # fmt: skip


def main() -> None:
    """Writes prime.inc and prime_count.inc beside this file."""
    native = importlib.import_module("secateur.native._native")
    nets = networks()
    data = native.sct_encode_prime([n.bytes() for n in nets])
    lines = [", ".join(str(b) for b in data[i : i + 24]) for i in range(0, len(data), 24)]
    here = Path(__file__).parent
    here.joinpath("prime.inc").write_text(",\n".join(lines) + "\n")
    here.joinpath("prime_count.inc").write_text(f"{len(nets)}\n")
    print(f"{len(nets)} networks, {len(data)} bytes")


if __name__ == "__main__":
    main()
