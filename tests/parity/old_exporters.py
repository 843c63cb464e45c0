"""Small models in the words of exporters of 2017 to 2019, opsets 6 to 10; `make_exporters.py` writes them.

Copied is how they said things: attributes that are inputs today, Upsample, Sum, masks and statistics that are named and
never read, constants as nodes, shapes taken apart and put together.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .exporter_words import Graph


def _norm(g: Graph, x: str, c: int, name: str, output: str, **attributes: object) -> str:
    values = (g.rng.uniform(0.5, 1.5, c), g.rng.standard_normal(c), g.rng.standard_normal(c), g.rng.uniform(0.5, 2, c))
    words = ("weight", "bias", "running_mean", "running_var")
    parameters = [g.const(v, f"{name}.{w}") for v, w in zip(values, words, strict=True)]
    test = {"is_test": 1} if g.opset < 7 else {}
    return g.node("BatchNormalization", [x, *parameters], output, **test, **attributes)


def _masked(g: Graph, x: str, output: str) -> str:
    """Dropout that names its mask."""
    test = {"is_test": 1} if g.opset < 7 else {}
    node = helper.make_node("Dropout", [x], [output, f"{output}_mask"], ratio=0.5, **test)
    g.nodes.append(node)
    return output


def _bias(g: Graph, x: str, b: str, output: str, axis: int = 1) -> str:
    """Add along an axis: an attribute before opset 7, a shape from it on."""
    if g.opset < 7:
        return g.node("Add", [x, b], output, broadcast=1, axis=axis)
    tensor = next(t for t in g.constants if t.name == b)
    tensor.dims.extend([1] * (4 - axis - len(tensor.dims)))
    return g.node("Add", [x, b], output)


def caffe2_squeeze(opset: int) -> bytes:
    """Caffe2 of a fire module: biases as Add along axis 1, LRN, Concat of two branches, a mean over all, Softmax."""
    g = Graph(opset)
    w, b = g.weight(8, 3, 3, 3, name="conv1_w_0"), g.weight(8, name="conv1_b_0")
    x = g.node("Conv", ["data_0", w], "conv1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0])
    x = g.node("Relu", [_bias(g, x, b, "conv1_1")], "conv1_2")
    x = g.node("LRN", [x], "norm1", size=3, alpha=1e-2, beta=0.75, bias=1.0)
    x = g.node("MaxPool", [x], "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0])
    w, b = g.weight(4, 8, 1, 1, name="fire_squeeze_w_0"), g.weight(4, name="fire_squeeze_b_0")
    x = g.node("Relu", [g.node("Conv", [x, w, b], "fire_squeeze", kernel_shape=[1, 1])], "fire_squeeze_1")
    one, three = g.weight(6, 4, 1, 1, name="fire_1x1_w_0"), g.weight(6, 4, 3, 3, name="fire_3x3_w_0")
    left = g.node("Relu", [g.node("Conv", [x, one], "fire_1x1", kernel_shape=[1, 1])], "fire_1x1_1")
    right = g.node("Conv", [x, three], "fire_3x3", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = g.node("Concat", [left, g.node("Relu", [right], "fire_3x3_1")], "fire_concat", axis=1)
    x = g.node("GlobalAveragePool", [_masked(g, x, "fire_drop")], "pool10")
    g.node("Softmax", [g.reshape(x, [-1, 12], "pool10_flat")], "softmaxout_1")
    return g.model({"data_0": [1, 3, 19, 19]}, ["softmaxout_1"], "onnx-caffe2")


def torch_upsample(opset: int) -> bytes:
    """PyTorch 0.4 to 1.2 of a small YOLO: norms, LeakyRelu, Upsample and Concat, flattened by a computed shape."""
    g = Graph(opset)
    w = g.weight(8, 3, 3, 3, name="stem.conv.weight")
    x = g.node("Conv", ["0", w], "10", dilations=[1, 1], group=1, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    skip = g.node("LeakyRelu", [_norm(g, x, 8, "stem.bn", "11", epsilon=1e-5, momentum=0.9)], "12", alpha=0.1)
    w = g.weight(8, 8, 3, 3, name="down.conv.weight")
    x = g.node("Conv", [skip, w], "13", dilations=[1, 1], group=1, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    x = g.node("LeakyRelu", [_norm(g, x, 8, "down.bn", "14", epsilon=1e-5, momentum=0.9)], "15", alpha=0.1)
    x = g.upsample(x, [1, 1, 2, 2], "16", "17")
    x = g.node("Concat", [x, skip], "18", axis=1)
    w, b = g.weight(4, 16, 1, 1, name="head.conv.weight"), g.weight(4, name="head.conv.bias")
    x = g.node("Sigmoid", [g.node("Conv", [x, w, b], "19", kernel_shape=[1, 1])], "20")
    x = _masked(g, g.node("MaxPool", [x], "21", kernel_shape=[2, 2], strides=[2, 2]), "22")
    shape, zero = g.node("Shape", [x], "23"), numpy_helper.from_array(np.asarray(0, np.int64), "24")
    batch = g.node("Gather", [shape, g.node("Constant", [], "25", value=zero)], "26", axis=0)
    rest = g.node("Constant", [], "27", value=numpy_helper.from_array(np.asarray([-1], np.int64), "27"))
    batch = g.node("Unsqueeze", [batch], "28", axes=[0])
    x = g.node("Reshape", [x, g.node("Concat", [batch, rest], "29", axis=0)], "30")
    w, b = g.weight(5, 64, name="fc.weight"), g.weight(5, name="fc.bias")
    g.node("Gemm", [x, w, b], "31", alpha=1.0, beta=1.0, transB=1)
    return g.model({"0": [2, 3, 16, 16]}, ["31"], "pytorch")


def torch_pieces(opset: int) -> bytes:
    """PyTorch 1.0 of tensor words: Slice, Pad by reflection, Squeeze, means, Clip, Split, TopK of a score."""
    g = Graph(opset)
    x = g.node("Slice", ["input.1"], "5", axes=[1], starts=[1], ends=[9223372036854775807])
    x = g.node("Pad", [x], "6", mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1])
    x = g.node("Conv", [x, g.weight(6, 2, 3, 3, name="conv.weight")], "7", kernel_shape=[3, 3], pads=[0] * 4)
    x = g.node("Clip", [x], "8", min=0.0, max=6.0)
    x = g.node("Pad", [x], "9", mode="constant", value=0.5, pads=[0, 0, 0, 0, 0, 0, 1, 1])
    x = g.node("AveragePool", [x], "10", kernel_shape=[2, 2], strides=[2, 2])
    g.nodes.append(helper.make_node("Split", [x], ["11", "12"], axis=1, split=[4, 2]))
    gate = g.node("ReduceMean", ["12"], "13", axes=[1], keepdims=1)
    x = g.node("Mul", ["11", g.node("Sigmoid", [gate], "14")], "15")
    x = g.node("ReduceMean", [x], "16", axes=[2], keepdims=1)
    x = g.node("Squeeze", [x], "17", axes=[2])
    x = g.node("Softmax", [g.node("Transpose", [x], "18", perm=[0, 2, 1])], "19", axis=2)
    g.nodes.append(helper.make_node("TopK", [x], ["20", "21"], axis=2, k=2))
    g.node("Cast", ["21"], "22", to=TensorProto.FLOAT)
    return g.model({"input.1": [1, 3, 8, 8]}, ["20", "22"], "pytorch")


def mxnet_face(opset: int) -> bytes:
    """MXNet of a face network: input scaled in the graph, PRelu, residual as Sum, a norm of each activation last."""
    g = Graph(opset)
    mean, scale = g.const([127.5], "_minusscalar0"), g.const([0.0078125], "_mulscalar0")
    if opset < 7:
        x = g.node("Sub", ["data", mean], "_minusscalar0_out", broadcast=1)
        x = g.node("Mul", [x, scale], "_mulscalar0_out", broadcast=1)
    else:
        x = g.node("Mul", [g.node("Sub", ["data", mean], "_minusscalar0_out"), scale], "_mulscalar0_out")
    x = g.node("Conv", [x, g.weight(8, 3, 3, 3, name="conv0_weight")], "conv0", kernel_shape=[3, 3], pads=[1] * 4)
    slopes = g.const(g.rng.uniform(0, 0.5, 8), "relu0_gamma")
    if opset >= 7:
        g.constants[-1].dims.extend([1, 1])
    x = g.node("PRelu", [_norm(g, x, 8, "bn0", "bn0_out", epsilon=2e-5, momentum=0.9), slopes], "relu0")
    y = g.node("Conv", [x, g.weight(8, 8, 3, 3, name="conv1_weight")], "conv1", kernel_shape=[3, 3], pads=[1] * 4)
    y = _norm(g, y, 8, "bn1", "bn1_out", epsilon=2e-5, momentum=0.9)
    x = g.node("Sum", [y, x], "plus0")
    x = g.node("MaxPool", [x], "pool0", kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)
    x = g.node("Flatten", [_masked(g, x, "dropout0")], "flatten0")
    x = g.node(
        "Gemm", [x, g.weight(6, 128, name="pre_fc1_weight"), g.weight(6, name="pre_fc1_bias")], "pre_fc1", transB=1
    )
    whole = {"spatial": 0} if opset < 9 else {}
    _norm(g, x, 6, "fc1", "fc1_out", epsilon=2e-5, momentum=0.9, **whole)
    return g.model({"data": [1, 3, 8, 8]}, ["fc1_out"], "mxnet")


def coreml_tiny(opset: int) -> bytes:
    """CoreML through onnxmltools: ImageScaler, norms, LeakyRelu, pools whose padding is worked out (SAME)."""
    g = Graph(opset)
    x = g.node("ImageScaler", ["image"], "scalerPreprocessor", bias=[-0.5, -0.4, -0.6], scale=0.00392156862745098)
    w = g.weight(6, 3, 3, 3, name="convolution_W")
    x = g.node("Conv", [x, w], "convolution", auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[1, 1], group=1)
    x = g.node(
        "LeakyRelu", [_norm(g, x, 6, "BatchNormalization", "batchnormalization", epsilon=1e-3)], "leakyrelu", alpha=0.1
    )
    x = g.node("MaxPool", [x], "maxpooling2d", auto_pad="SAME_LOWER", kernel_shape=[2, 2], strides=[1, 1])
    x = g.node("AveragePool", [x], "averagepooling2d", auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[2, 2])
    w, b = g.weight(5, 6, 1, 1, name="convolution1_W"), g.weight(5, name="convolution1_B")
    g.node("Conv", [x, w, b], "grid", auto_pad="VALID", kernel_shape=[1, 1])
    return g.model({"image": ["None", 3, 13, 13]}, ["grid"], "OnnxMLTools")


def keras2onnx_conv(opset: int) -> bytes:
    """keras2onnx: NHWC in and out of a convolution, Identity around names, Reshape and Relu6 as Clip of attributes."""
    g = Graph(opset)
    x = g.node("Transpose", ["input_1"], "adjusted_input1", perm=[0, 3, 1, 2])
    w, b = g.weight(6, 3, 3, 3, name="conv2d/kernel:0"), g.weight(6, name="conv2d/bias:0")
    x = g.node("Conv", [x, w, b], "convolution_output", auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[2, 2])
    x = g.node("Identity", [g.clip(x, g.bounds("low", "high"), "relu6/clip")], "re_lu_output")
    x = g.node("MaxPool", [x], "max_pooling2d_output", kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = g.node("Transpose", [x], "adjusted_output", perm=[0, 2, 3, 1])
    x = g.reshape(x, [-1, 54], "flatten_output")
    w, b = g.weight(54, 4, name="dense/kernel:0"), g.weight(4, name="dense/bias:0")
    x = g.node("Identity", [g.node("Add", [g.node("MatMul", [x, w], "transformed"), b], "biased")], "dense_linear")
    g.node("Softmax", [x], "dense_1")
    return g.model({"input_1": ["N", 12, 12, 3]}, ["dense_1"], "keras2onnx")
