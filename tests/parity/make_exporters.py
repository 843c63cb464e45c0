"""Small models in the words of exporters that the tests cannot install: tf2onnx (Keras), skl2onnx, older frameworks.

    python -m tests.parity.make_exporters       # writes tests/parity/exporters/*.onnx, the same bytes every time

What is copied of an exporter is how it says things: layouts, paddings, shapes computed while running, constants as
inputs or attributes, names. The nets are tiny and their weights random.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from . import old_exporters
from .exporter_words import Graph

FOLDER = Path(__file__).parent / "exporters"
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)


def keras_mobile(opset: int) -> bytes:
    """tf2onnx of a Keras mobile block: NHWC in, Pad and a VALID convolution, depthwise, norm apart, Relu6 as Clip."""
    g = Graph(opset)
    x = g.node("Transpose", ["input_1:0"], "model/conv1/Conv2D__6:0", perm=[0, 3, 1, 2])
    x = g.pad(x, [0, 0, 0, 0, 0, 0, 1, 1], "model/conv1_pad/Pad:0", "model/conv1_pad/Pad/paddings:0")
    w = g.weight(8, 3, 3, 3, name="model/conv1/Conv2D/ReadVariableOp:0")
    x = g.node("Conv", [x, w], "model/conv1/Conv2D:0", kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID")
    bounds = g.bounds("const_zero", "const_six")

    def norm(x: str, c: int, name: str) -> str:
        names = ("gamma", "beta", "moving_mean")
        parameters = [g.const(g.rng.standard_normal(c), f"{name}/{n}") for n in names]
        parameters.append(g.const(g.rng.uniform(0.5, 2, c), f"{name}/moving_variance"))
        return g.node("BatchNormalization", [x, *parameters], f"{name}/FusedBatchNormV3:0", epsilon=1e-3)

    x = g.clip(norm(x, 8, "model/conv1_bn"), bounds, "model/conv1_relu/Relu6:0")
    w = g.weight(8, 1, 3, 3, name="model/conv_dw_1/depthwise/ReadVariableOp:0")
    x = g.node("Conv", [x, w], "model/conv_dw_1/depthwise:0", kernel_shape=[3, 3], group=8, auto_pad="SAME_UPPER")
    x = g.clip(norm(x, 8, "model/conv_dw_1_bn"), bounds, "model/conv_dw_1_relu/Relu6:0")
    w = g.weight(12, 8, 2, 2, name="model/conv_2/Conv2D/ReadVariableOp:0")
    x = g.node("Conv", [x, w], "model/conv_2:0", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    x = g.axes("ReduceMean", x, [2, 3], "model/pool/Mean:0", 18, keepdims=1)
    x = g.axes("Squeeze", x, [2, 3], "model/pool/Mean__22:0", 13)
    x = g.node("MatMul", [x, g.weight(12, 5, name="model/dense/MatMul/ReadVariableOp:0")], "model/dense/MatMul:0")
    x = g.node("Add", [x, g.weight(5, name="model/dense/BiasAdd/ReadVariableOp:0")], "model/dense/BiasAdd:0")
    g.node("Softmax", [x], "Identity:0", axis=1)
    return g.model({"input_1:0": ["unk__30", 16, 16, 3]}, ["Identity:0"], "tf2onnx")


def keras_flatten(opset: int) -> bytes:
    """tf2onnx of Conv, MaxPool, Flatten, Dense: back to NHWC, and the batch of the Reshape computed while running."""
    g = Graph(opset)
    x = g.node("Transpose", ["input_1:0"], "seq/conv2d/Conv2D__5:0", perm=[0, 3, 1, 2])
    w, b = g.weight(6, 1, 5, 5, name="seq/conv2d/ReadVariableOp:0"), g.weight(6, name="seq/conv2d/BiasAdd:0")
    x = g.node("Conv", [x, w, b], "seq/conv2d/BiasAdd", kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    x = g.node("Tanh", [x], "seq/conv2d/Tanh:0")
    x = g.node("MaxPool", [x], "seq/max_pooling2d:0", kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = g.node("Transpose", [x], "seq/max_pooling2d__12:0", perm=[0, 2, 3, 1])
    shape = g.node("Shape", [x], "seq/flatten/Shape:0")
    shape = g.node("Cast", [shape], "seq/flatten/Shape__13:0", to=TensorProto.INT32)
    batch = g.first(shape, "seq/flatten/strided_slice:0")
    batch = g.axes("Squeeze", batch, [0], "seq/flatten/strided_slice__14:0", 13)
    batch = g.axes("Unsqueeze", batch, [0], "seq/flatten/Reshape/shape_Unsqueeze__15:0", 13)
    rest = g.const([-1], "const_fold_opt__20", np.int32)
    shape = g.node("Concat", [batch, rest], "seq/flatten/Reshape/shape_Concat__17:0", axis=0)
    shape = g.node("Cast", [shape], "seq/flatten/Reshape__18:0", to=TensorProto.INT64)
    x = g.node("Reshape", [x, shape], "seq/flatten/Reshape:0")
    w, b = g.weight(6 * 36, 7, name="seq/dense/MatMul/ReadVariableOp:0"), g.weight(7, name="seq/dense/BiasAdd")
    x = g.node("Add", [g.node("MatMul", [x, w], "seq/dense/MatMul:0"), b], "seq/dense/BiasAdd:0")
    g.node("Sigmoid", [x], "output_1:0")
    return g.model({"input_1:0": ["unk__7", 12, 12, 1]}, ["output_1:0"], "tf2onnx")


def keras_resnet(opset: int) -> bytes:
    """tf2onnx of a residual block that stays in NHWC between layers: Transpose pairs around every convolution."""
    g = Graph(opset)

    def conv(x: str, inputs: int, outputs: int, name: str) -> str:
        x = g.node("Transpose", [x], f"{name}__in:0", perm=[0, 3, 1, 2])
        w, b = g.weight(outputs, inputs, 3, 3, name=f"{name}/kernel:0"), g.weight(outputs, name=f"{name}/bias:0")
        x = g.node("Conv", [x, w, b], f"{name}/Conv2D:0", kernel_shape=[3, 3], auto_pad="SAME_UPPER")
        return g.node("Transpose", [x], f"{name}__out:0", perm=[0, 2, 3, 1])

    x = g.node("Relu", [conv("input_1:0", 3, 8, "block/conv0")], "block/relu0:0")
    y = g.node("Relu", [conv(x, 8, 8, "block/conv1")], "block/relu1:0")
    x = g.node("Relu", [g.node("Add", [conv(y, 8, 8, "block/conv2"), x], "block/add:0")], "block/relu2:0")
    x = g.axes("ReduceMean", x, [1, 2], "gap/Mean:0", 18, keepdims=0)
    w, b = g.weight(8, 3, name="dense/kernel:0"), g.weight(3, name="dense/bias:0")
    g.node("Add", [g.node("MatMul", [x, w], "dense/MatMul:0"), b], "Identity:0")
    return g.model({"input_1:0": ["unk__9", 9, 9, 3]}, ["Identity:0"], "tf2onnx")


def skl_mlp(opset: int) -> bytes:
    """skl2onnx of a scaler and a multi-layer perceptron: Sub and Div, MatMul and Add, all in names of variables."""
    g = Graph(opset)
    x = g.node("Sub", ["X", g.const(g.rng.standard_normal(6), "Su_Subcst")], "Su_C0")
    x = g.node("Div", [x, g.const(g.rng.uniform(0.5, 2, 6), "Di_Divcst")], "variable")
    x = g.node("Cast", [x], "cast_input", to=TensorProto.FLOAT)
    for i, (n_in, n_out) in enumerate(((6, 10), (10, 3))):
        w = g.const(g.rng.standard_normal((n_in, n_out)), f"coefficient{i or ''}")
        b = g.const(g.rng.standard_normal((1, n_out)), f"intercepts{i or ''}")
        x = g.node("Add", [g.node("MatMul", [x, w], f"mul_result{i or ''}"), b], f"add_result{i or ''}")
        x = g.node("Relu" if i == 0 else "Softmax", [x], f"out_activations_result{i or ''}")
    return g.model({"X": [None, 6]}, [x], "skl2onnx")  # type: ignore[list-item]


def skl_linear(opset: int) -> bytes:
    """skl2onnx of a linear model as Gemm with alpha, beta and a bias row, then a Reshape with -1."""
    g = Graph(opset)
    w, b = g.weight(6, 4, name="coef"), g.weight(1, 4, name="intercept")
    x = g.node("Gemm", ["X", w, b], "multiplied", alpha=0.5, beta=2.0)
    g.node("Reshape", [x, g.const([-1, 4], "shape_tensor", np.int64)], "variable")
    return g.model({"X": [None, 6]}, ["variable"], "skl2onnx")  # type: ignore[list-item]


def paddle_block(opset: int) -> bytes:
    """Constants as nodes, scale and shift apart, hard-swish in pieces, a squeeze-and-excitation gate."""
    g = Graph(opset)

    def number(value: float, name: str) -> str:
        tensor = numpy_helper.from_array(np.asarray([value], np.float32), name)
        return g.node("Constant", [], name, value=tensor)

    w = g.weight(8, 4, 1, 1, name="conv2d_0.w_0")
    x = g.node("Conv", ["x0", w], "conv2d_0.tmp_0", kernel_shape=[1, 1], dilations=[1, 1], group=1, pads=[0] * 4)
    scale, shift = g.weight(1, 8, 1, 1, name="p2o.scale"), g.weight(1, 8, 1, 1, name="p2o.shift")
    x = g.node("Add", [g.node("Mul", [x, scale], "p2o.mul"), shift], "p2o.add")
    clip = g.node("Add", [x, number(3.0, "p2o.three")], "p2o.plus")
    clip = g.clip(clip, g.bounds("p2o.low", "p2o.high"), "p2o.clip")
    x = g.node("Div", [g.node("Mul", [x, clip], "p2o.prod"), number(6.0, "p2o.six")], "hardswish_0.tmp_0")
    gate = g.node("GlobalAveragePool", [x], "pool2d_0.tmp_0")
    gate = g.node("Relu", [g.node("Conv", [gate, g.weight(2, 8, 1, 1, name="se.w_0")], "se.down")], "se.relu")
    gate = g.node("Conv", [gate, g.weight(8, 2, 1, 1, name="se.w_1")], "se.up")
    gate = g.node("HardSigmoid", [gate], "se.gate", alpha=0.2, beta=0.5)
    x = g.node("Mul", [x, gate], "se.out")
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x], "pool2d_1.tmp_0")], "flatten_0.tmp_0", axis=1)
    g.node(
        "Gemm", [x, g.weight(8, 5, name="linear_0.w_0"), g.weight(5, name="linear_0.b_0")], "save_infer_model/scale_0"
    )
    return g.model({"x0": ["batch", 4, 7, 7]}, ["save_infer_model/scale_0"], "paddle2onnx")


MODELS: dict[str, Callable[[int], bytes]] = {
    f.__name__: f for f in (keras_mobile, keras_flatten, keras_resnet, skl_mlp, skl_linear, paddle_block)
}
WRITTEN = 13  # the opset of the files
# Words that did not outlive their time: the opsets of each, the file's first.
OLD: dict[str, tuple[Callable[[int], bytes], tuple[int, ...]]] = {
    f.__name__: (f, opsets)
    for f, opsets in (
        (old_exporters.caffe2_squeeze, (6, 7, 8, 9, 10)),
        (old_exporters.coreml_tiny, (7, 8, 9)),
        (old_exporters.keras2onnx_conv, (9, 7, 8, 10, 11, 12)),
        (old_exporters.mxnet_face, (8, 6, 7, 9)),
        (old_exporters.torch_pieces, (9, 7, 8)),
        (old_exporters.torch_upsample, (9, 7, 8, 10)),
    )
}


def files() -> dict[str, bytes]:
    """What stands in the folder."""
    new = {name: build(WRITTEN) for name, build in MODELS.items()}
    return new | {name: build(opsets[0]) for name, (build, opsets) in OLD.items()}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in files().items():
        (FOLDER / f"{name}.onnx").write_bytes(data)


if __name__ == "__main__":
    main()
