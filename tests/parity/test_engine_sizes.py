"""Operators with no row, one row and 100,003 rows, and with other axes empty, against ONNX Runtime at every ISA."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession, isas
from secateur.native import _native
from secateur.shell import runtimes

from .engine_graphs import EPS

ROWS = (0, 1, 100_003)
Shape = tuple[int | str, ...]
F = np.float32


class Case:
    """A graph whose axes named "n" are the rows; other axes are tiny, so that a hundred thousand rows fit a test."""

    def __init__(self, opset: int = 18) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(5)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[np.dtype[Any], Shape]] = {}
        self.results: list[str] = []
        self.terms = 32  # of the longest sum
        self.none: tuple[int, ...] | None = (
            None  # shape of the answer for no rows, where ONNX Runtime has none or a wrong one
        )
        self.step = 0.0  # two neighbours of a grid may be taken for each other

    def x(self, *shape: int | str, dtype: Any = F) -> str:
        self.inputs[f"x{len(self.inputs)}"] = (np.dtype(dtype), shape)
        return f"x{len(self.inputs) - 1}"

    def c(self, value: object, dtype: Any = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def w(self, *shape: int) -> str:
        return self.c(self.rng.standard_normal(shape) * (self.rng.random(shape) < 0.6), F)

    def op(self, name: str, *inputs: str, outputs: int = 1, domain: str = "", **attrs: Any) -> str:
        made = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(name, list(inputs), made, domain=domain, **attrs))
        self.results = made
        return made[0]

    def model(self) -> bytes:
        infos = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(t), list(s))
            for k, (t, s) in self.inputs.items()
        ]
        outs = [helper.make_tensor_value_info(r, TensorProto.UNDEFINED, None) for r in self.results]
        for o in outs:
            o.ClearField("type")
        graph = helper.make_graph(self.nodes, "g", infos, outs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

    def feeds(self, rows: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(7)
        found = {}
        for name, (dtype, shape) in self.inputs.items():
            dims = [rows if d == "n" else d for d in shape]
            v = rng.standard_normal(dims) if dtype.kind == "f" else rng.integers(0, 3, dims)
            found[name] = v.astype(dtype)
        return found


Build = Callable[[Case], object]
CASES: dict[str, Build] = {}


def case(name: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        CASES[name] = build
        return build

    return add


def simple(name: str, build: Build) -> None:
    CASES[name] = build


UNARY = [
    "Abs",
    "Ceil",
    "Celu",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
]
for _op in UNARY:
    simple(
        _op,
        lambda k, op=_op: k.op(op, k.op("Abs", k.x("n", 3)) if op in ("Log", "Sqrt", "Reciprocal") else k.x("n", 3)),
    )
for _op in ["Add", "Sub", "Mul", "Div", "Min", "Max"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3), k.x("n", 3)))
    simple(f"{_op}_vector", lambda k, op=_op: k.op(op, k.x("n", 3), k.w(3)))
    simple(f"{_op}_column", lambda k, op=_op: k.op(op, k.x("n", 3), k.x("n", 1)))
    simple(f"{_op}_int64", lambda k, op=_op: k.op(op, k.x("n", 3, dtype=np.int64), k.c([[1, 2, 3]])))
for _op in ["Sum", "Mean"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3), k.x("n", 1), k.w(3)))
simple("Pow", lambda k: k.op("Pow", k.op("Abs", k.x("n", 3)), k.x("n", 1)))
for _op in ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3), k.x("n", 1)))
for _op in ["And", "Or", "Xor"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3, dtype=bool), k.x(3, dtype=bool)))
for _op in ["ReduceMax", "ReduceMin", "ReduceProd"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3, 2), k.c([1])))
for _op in ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"]:
    simple(
        _op,
        lambda k, op=_op: k.op(op, k.op("Abs", k.x("n", 3, 2)) if op == "ReduceLogSum" else k.x("n", 3, 2), k.c([1])),
    )
for _op in ["ArgMax", "ArgMin"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 3), axis=1))
for _op in ["Softmax", "LogSoftmax"]:
    simple(_op, lambda k, op=_op: k.op(op, k.x("n", 5)))
    simple(f"{_op}_inner", lambda k, op=_op: k.op(op, k.x("n", 3, 2), axis=1))

simple("Not", lambda k: k.op("Not", k.x("n", 3, dtype=bool)))
simple("Clip", lambda k: k.op("Clip", k.x("n", 3), k.c(-0.5, F), k.c(0.5, F)))
simple("Cast", lambda k: k.op("Cast", k.x("n", 3), to=TensorProto.INT64))
simple("CastLike", lambda k: k.op("CastLike", k.x("n", 3), k.x(1, dtype=np.int64)))
simple("IsNaN", lambda k: k.op("IsNaN", k.op("Log", k.x("n", 3))))
simple("Dropout", lambda k: k.op("Dropout", k.x("n", 3)))
simple("Mod", lambda k: k.op("Mod", k.x("n", 3, dtype=np.int64), k.c([2])))
simple("PRelu", lambda k: k.op("PRelu", k.x("n", 3), k.w(3)))
simple("Where", lambda k: k.op("Where", k.x("n", 3, dtype=bool), k.x("n", 1), k.w(3)))
simple("TopK", lambda k: k.op("TopK", k.x("n", 5), k.c([2]), outputs=2))
simple("TopK_none", lambda k: k.op("TopK", k.x("n", 5), k.c([0]), outputs=2))
simple("Constant", lambda k: k.op("Add", k.x("n", 1), k.op("Constant", value_floats=[1.0, 2.0])))
simple(
    "ConstantOfShape",
    lambda k: k.op(
        "ConstantOfShape", k.op("Shape", k.x("n", 3)), value=numpy_helper.from_array(np.array([7], np.int64))
    ),
)
simple("Shape", lambda k: k.op("Shape", k.x("n", 3)))
simple("Size", lambda k: k.op("Size", k.x("n", 3)))
simple("Range", lambda k: k.op("Range", k.c(0), k.op("Squeeze", k.op("Shape", k.x("n", 3), end=1)), k.c(1)))
simple("Expand", lambda k: k.op("Expand", k.x("n", 1), k.c([1, 4])))
simple("Expand_to_rows", lambda k: k.op("Expand", k.w(1, 3), k.op("Shape", k.x("n", 3))))
simple("Flatten", lambda k: k.op("Flatten", k.x("n", 2, 3)))
simple("Reshape", lambda k: k.op("Reshape", k.x("n", 2, 3), k.c([-1, 6])))
simple("Squeeze", lambda k: k.op("Squeeze", k.x("n", 1, 3), k.c([1])))
simple("Unsqueeze", lambda k: k.op("Unsqueeze", k.x("n", 3), k.c([1])))
simple("Transpose", lambda k: k.op("Transpose", k.x("n", 2, 3), perm=[2, 0, 1]))
simple("Trilu", lambda k: k.op("Trilu", k.x("n", 3, 4), k.c(1)))
simple("Trilu_lower_rows", lambda k: k.op("Trilu", k.x("n", 3), k.c(-1), upper=0))
simple("Slice", lambda k: k.op("Slice", k.x("n", 5), k.c([1]), k.c([5]), k.c([1]), k.c([2])))
simple("Slice_rows", lambda k: k.op("Slice", k.x("n", 5), k.c([1]), k.c([2**62]), k.c([0])))
simple("Split", lambda k: k.op("Split", k.x("n", 5), k.c([2, 0, 3]), axis=1, outputs=3))
simple("Concat", lambda k: k.op("Concat", k.x("n", 2), k.x("n", 3), axis=1))
simple("Concat_rows", lambda k: k.op("Concat", k.x("n", 2), k.w(3, 2), k.x("n", 2), axis=0))
simple("Tile", lambda k: k.op("Tile", k.x("n", 2), k.c([1, 3])))
simple("Gather", lambda k: k.op("Gather", k.x("n", 3), k.c([[2, 0], [-1, 1]]), axis=1))
simple("Gather_table", lambda k: k.op("Gather", k.w(3, 4), k.x("n", dtype=np.int64)))
simple("Gather_int32", lambda k: k.op("Gather", k.w(3, 4), k.x("n", 2, dtype=np.int32)))
simple("GatherND", lambda k: k.op("GatherND", k.w(3, 4, 2), k.x("n", 2, dtype=np.int64)))
simple("GatherND_batches", lambda k: k.op("GatherND", k.x("n", 3, 2), k.x("n", 2, 1, dtype=np.int64), batch_dims=1))
simple("GatherND_from_the_end", lambda k: k.op("GatherND", k.x(3, 4), k.c([[[0, -1], [-3, 2]]])))
simple("Pad", lambda k: k.op("Pad", k.x("n", 3), k.c([0, 1, 0, 2])))
simple("Pad_rows", lambda k: k.op("Pad", k.x("n", 3), k.c([1, 0, 2, 0]), k.c(5, F)))
simple("Pad_reflect", lambda k: k.op("Pad", k.x("n", 3), k.c([0, 1, 0, 2]), mode="reflect"))
simple("DepthToSpace", lambda k: k.op("DepthToSpace", k.x("n", 4, 1, 2), blocksize=2))
simple("SpaceToDepth", lambda k: k.op("SpaceToDepth", k.x("n", 1, 2, 4), blocksize=2))
simple("Resize", lambda k: k.op("Resize", k.x("n", 1, 2, 2), "", k.c([1, 1, 2, 1.5], F), mode="linear"))
simple("Einsum", lambda k: k.op("Einsum", k.x("n", 2, 3), k.w(3, 4), equation="nij,jk->nik"))
simple("Einsum_batched", lambda k: k.op("Einsum", k.x("n", 2, 3), k.x("n", 3, 2), equation="bij,bjk->bik"))
simple("MatMul", lambda k: k.op("MatMul", k.x("n", 5), k.w(5, 7)))
simple("MatMul_cube", lambda k: k.op("MatMul", k.x("n", 2, 5), k.w(5, 7)))
simple("MatMul_run_time", lambda k: k.op("MatMul", k.x("n", 2, 3), k.x("n", 3, 2)))
simple("MatMul_one_right", lambda k: k.op("MatMul", k.x("n", 2, 3), k.x(3, 2)))
simple("MatMul_residual", lambda k: k.op("Relu", k.op("Add", k.op("MatMul", k.x("n", 5), k.w(5, 5)), k.x("n", 5))))
simple("Gemm", lambda k: k.op("Gemm", k.x("n", 5), k.w(7, 5), k.w(7), transB=1, alpha=0.5))
simple("Gemm_run_time", lambda k: k.op("Gemm", k.x("n", 3), k.x(3, 2), k.x(1, 2), beta=0.5))
simple(
    "BatchNormalization",
    lambda k: k.op("BatchNormalization", k.x("n", 3, 2), k.w(3), k.w(3), k.w(3), k.c([1, 2, 3], F)),
)
simple("LayerNormalization", lambda k: k.op("LayerNormalization", k.x("n", 8), k.w(8), k.w(8)))
simple(
    "LayerNormalization_residual",
    lambda k: k.op("LayerNormalization", k.op("Add", k.x("n", 8), k.x("n", 8)), k.w(8), k.w(8)),
)
simple("SimplifiedLayerNormalization", lambda k: k.op("SimplifiedLayerNormalization", k.x("n", 8), k.w(8), axis=-1))
simple("InstanceNormalization", lambda k: k.op("InstanceNormalization", k.x("n", 2, 4), k.w(2), k.w(2)))
simple("LRN", lambda k: k.op("LRN", k.x("n", 3, 2, 1), size=3))
simple("Conv", lambda k: k.op("Conv", k.x("n", 2, 3, 3), k.w(3, 2, 2, 2), k.w(3)))
simple("Conv_depthwise", lambda k: k.op("Conv", k.x("n", 3, 3, 3), k.w(3, 1, 3, 3), group=3, pads=[1] * 4))
simple("Conv_one_d", lambda k: k.op("Conv", k.x("n", 2, 5), k.w(3, 2, 3)))
simple("Conv_run_time", lambda k: k.op("Conv", k.x("n", 2, 3, 3), k.x(1, 2, 2, 2)))
simple("ConvTranspose", lambda k: k.op("ConvTranspose", k.x("n", 2, 2, 2), k.w(2, 1, 2, 2), strides=[2, 2]))
simple("MaxPool", lambda k: k.op("MaxPool", k.x("n", 1, 3, 3), kernel_shape=[2, 2]))
simple("AveragePool", lambda k: k.op("AveragePool", k.x("n", 1, 3, 3), kernel_shape=[2, 2], pads=[1, 0, 0, 0]))
simple("GlobalAveragePool", lambda k: k.op("GlobalAveragePool", k.x("n", 2, 2, 2)))
simple("GlobalMaxPool", lambda k: k.op("GlobalMaxPool", k.x("n", 2, 2, 2)))
simple(
    "MatMulInteger",
    lambda k: k.op("MatMulInteger", k.x("n", 5, dtype=np.uint8), k.c(k.rng.integers(-9, 9, (5, 3)), np.int8)),
)
simple(
    "ConvInteger",
    lambda k: k.op("ConvInteger", k.x("n", 2, 3, 3, dtype=np.uint8), k.c(k.rng.integers(-9, 9, (2, 2, 2, 2)), np.int8)),
)


@case("ReduceMean")
def reduce_mean(k: Case) -> None:
    k.op("ReduceMean", k.x("n", 3, 2), k.c([-1]), keepdims=0)
    k.none = (0, 3)


@case("ReduceSum")
def reduce_sum(k: Case) -> None:
    k.op("ReduceSum", k.x("n", 3, 2), k.c([1]), keepdims=0)
    k.none = (0, 2)


@case("ReduceSum_rows")
def reduce_sum_rows(k: Case) -> None:
    k.op("ReduceSum", k.x(2, "n", 3), k.c([1]))
    k.terms = 100_003


@case("ReduceMean_rows")
def reduce_mean_rows(k: Case) -> None:
    k.op("ReduceMean", k.x(3, "n"), k.c([1]))
    k.terms = 100_003


@case("Conv_residual_pool")
def conv_residual_pool(k: Case) -> None:
    x = k.x("n", 2, 4, 4)
    y = k.op("Conv", x, k.w(2, 2, 3, 3), k.w(2), pads=[1] * 4)
    k.op("Relu", k.op("Add", k.op("Conv", y, k.w(2, 2, 3, 3), pads=[1] * 4), x))


@case("Conv_pool")
def conv_pool(k: Case) -> None:
    y = k.op("Relu", k.op("Conv", k.x("n", 2, 4, 4), k.w(2, 2, 3, 3), k.w(2), pads=[1] * 4))
    k.op("Gemm", k.op("Flatten", k.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])), k.w(8, 3))


@case("Swish")
def swish(k: Case) -> None:
    x = k.x("n", 3)
    k.op("Mul", x, k.op("Sigmoid", x))


@case("Gelu")
def gelu(k: Case) -> None:
    k.opset = 20
    k.op("Gelu", k.x("n", 3))


@case("GroupNormalization")
def group_normalization(k: Case) -> None:
    k.opset = 21
    k.op("GroupNormalization", k.x("n", 4, 2), k.w(4), k.w(4), num_groups=2)
    k.none = (0, 4, 2)
    k.terms = 4096  # four values that are nearly equal: rounding is divided by their small deviation


@case("RMSNormalization")
def rmsnormalization(k: Case) -> None:
    k.opset = 23
    k.op("RMSNormalization", k.x("n", 8), k.w(8))


@case("Attention")
def attention(k: Case) -> None:
    k.opset = 23
    k.op("Attention", *(k.x("n", 2, 3, 2) for _ in range(3)))
    k.none = (0, 2, 3, 2)


@case("Attention_written_out")
def attention_written_out(k: Case) -> None:
    q, key, v = (k.x("n", 1, 3, 2) for _ in range(3))
    scores = k.op("Mul", k.op("MatMul", q, k.op("Transpose", key, perm=[0, 1, 3, 2])), k.c(0.5, F))
    k.op("MatMul", k.op("Softmax", scores, axis=-1), v)


@case("MultiHeadAttention")
def multi_head_attention(k: Case) -> None:
    k.op("MultiHeadAttention", *(k.x("n", 2, 4) for _ in range(3)), domain="com.microsoft", num_heads=2)


@case("Gelu_microsoft")
def gelu_microsoft(k: Case) -> None:
    k.op("Gelu", k.x("n", 3), domain="com.microsoft")


@case("SkipLayerNormalization")
def skip_layer_normalization(k: Case) -> None:
    x, skip = k.x("n", 2, 8), k.x("n", 2, 8)
    k.op("SkipLayerNormalization", x, skip, k.w(8), k.w(8), k.w(8), domain="com.microsoft")


@case("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(k: Case) -> None:
    k.op("SkipSimplifiedLayerNormalization", k.x("n", 2, 8), k.x("n", 2, 8), k.w(8), domain="com.microsoft")


def grid(k: Case, scale: float = 0.05, zero: int = 3) -> tuple[str, str]:
    return k.c(scale, F), k.c(zero, np.uint8)


def through(k: Case, value: str, scale: float = 0.05, zero: int = 3) -> str:
    k.step = max(k.step, scale)
    g = grid(k, scale, zero)
    return k.op("DequantizeLinear", k.op("QuantizeLinear", value, *g), *g)


def weights(k: Case, *shape: int) -> str:
    return k.op("DequantizeLinear", k.c(k.rng.integers(-100, 100, shape), np.int8), k.c(0.01, F), k.c(0, np.int8))


@case("QuantizeLinear")
def quantize_linear(k: Case) -> None:
    k.op("QuantizeLinear", k.x("n", 4), *grid(k))


@case("DequantizeLinear")
def dequantize_linear(k: Case) -> None:
    k.op(
        "DequantizeLinear",
        k.x("n", 4, dtype=np.uint8),
        k.c([0.1, 0.2, 0.3, 0.4], F),
        k.c([1, 2, 3, 4], np.uint8),
        axis=1,
    )


@case("integer_convolution")
def integer_convolution(k: Case) -> None:
    x = through(k, k.x("n", 4, 3, 3))
    a = through(k, k.op("Relu", k.op("Conv", x, weights(k, 4, 4, 3, 3), pads=[1] * 4)))
    b = through(k, k.op("Add", through(k, k.op("Conv", a, weights(k, 4, 4, 1, 1))), x))
    p = through(k, k.op("MaxPool", b, kernel_shape=[2, 2]))
    flat = through(k, k.op("Flatten", through(k, k.op("GlobalAveragePool", p))))
    through(k, k.op("Gemm", flat, weights(k, 3, 4), transB=1))
    k.step *= 4


@case("integer_depthwise")
def integer_depthwise(k: Case) -> None:
    x = through(k, k.x("n", 4, 3, 3))
    through(k, k.op("Conv", x, weights(k, 4, 1, 3, 3), pads=[1] * 4, group=4))


@case("integer_linear")
def integer_linear(k: Case) -> None:
    k.op("MatMul", through(k, through(k, k.x("n", 8))), weights(k, 8, 5))


@case("integer_sum_that_broadcasts")
def integer_sum_that_broadcasts(k: Case) -> None:
    through(k, k.op("Add", through(k, k.x("n", 4, 2)), through(k, k.x("n", 4, 1))))


@case("QLinearConv")
def qlinear_conv(k: Case) -> None:
    k.step = 1
    x, g = k.op("QuantizeLinear", k.x("n", 2, 3, 3), *(g := grid(k))), g
    w = (k.c(k.rng.integers(-9, 9, (3, 2, 2, 2)), np.int8), k.c(0.01, F), k.c(0, np.int8))
    k.op("QLinearConv", x, *g, *w, *grid(k, 0.02))


@case("QLinearMatMul")
def qlinear_mat_mul(k: Case) -> None:
    k.step = 1
    x, g = k.op("QuantizeLinear", k.x("n", 5), *(g := grid(k))), g
    w = (k.c(k.rng.integers(-9, 9, (5, 3)), np.int8), k.c(0.01, F), k.c(0, np.int8))
    k.op("QLinearMatMul", x, *g, *w, *grid(k, 0.02))


@case("QLinearAdd")
def qlinear_add(k: Case) -> None:
    k.step = 1
    a, b, g = k.x("n", 4, dtype=np.uint8), k.x("n", 4, dtype=np.uint8), grid(k)
    k.op("QLinearAdd", a, *g, b, *g, *grid(k, 0.1), domain="com.microsoft")


@case("QLinearGlobalAveragePool")
def qlinear_global_average_pool(k: Case) -> None:
    k.step = 1
    k.op("QLinearGlobalAveragePool", k.x("n", 4, 2, 2, dtype=np.uint8), *grid(k), *grid(k), domain="com.microsoft")


@case("QGemm")
def qgemm(k: Case) -> None:
    k.step = 1
    w = (k.c(k.rng.integers(-9, 9, (3, 5)), np.int8), k.c(0.01, F), k.c(0, np.int8))
    k.op("QGemm", k.x("n", 5, dtype=np.uint8), *grid(k), *w, "", *grid(k, 0.02), transB=1, domain="com.microsoft")


@case("Upsample")
def upsample(k: Case) -> None:
    k.opset = 9
    k.op("Upsample", k.x("n", 1, 2, 2), k.c([1, 1, 2, 3], F), mode="nearest")


@case("ImageScaler")
def image_scaler(k: Case) -> None:
    k.opset = 9
    k.op("ImageScaler", k.x("n", 2, 2, 1), scale=0.5, bias=[0.25, -1.0])


@case("DynamicQuantizeLinear")
def dynamic_quantize_linear(k: Case) -> None:
    # Statistics over all rows: of none there are none.
    k.op("DynamicQuantizeLinear", k.op("Concat", k.x("n", 4), k.w(1, 4), axis=0), outputs=3)
    k.step = 1


def run_ort(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = runtimes.onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def agree(k: Case, got: list[np.ndarray], want: list[np.ndarray], what: str) -> None:
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), what
        if a.dtype.kind != "f" and not k.step:
            assert np.array_equal(a, b), what
            continue
        allowed = (
            k.terms * EPS * max(1.0, float(np.max(np.abs(b.astype(np.float64)), initial=0, where=np.isfinite(b))))
            + k.step
        )
        same = np.isclose(a.astype(np.float64), b.astype(np.float64), rtol=0, atol=allowed, equal_nan=True)
        assert same.all(), f"{what}: {a[~same][:3]} is not {b[~same][:3]}"


@pytest.mark.parametrize("name", CASES)
def test_no_row_one_row_and_many(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    k = Case()
    CASES[name](k)
    model = k.model()
    want = {rows: run_ort(model, k.feeds(rows)) for rows in ROWS if rows or k.none is None}
    if k.none is not None:
        want[0] = [np.zeros(k.none, np.float32)]
    for isa in isas():
        monkeypatch.setenv("SECATEUR_ISA", isa)
        for threads in (1, 2):
            session = InferenceSession(model, threads=threads, fallback=None)
            for rows in (1, 0, 100_003, 0):
                agree(k, session.run(None, k.feeds(rows)), want[rows], f"{name}, {isa}, {threads} threads, {rows} rows")


def test_every_operator_has_a_case() -> None:
    ran = {"Swish"}  # of opset 24; what the passes make of x * Sigmoid(x)
    for build in CASES.values():
        k = Case()
        build(k)
        ran |= {n.op_type for n in k.nodes}
    missing = set(_native.supported_operators().split(", ")) - ran
    assert missing == set()


def f(*shape: int, dtype: Any = F) -> np.ndarray:
    return np.ones(shape, dtype)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# Operator, inputs (a tuple: constant), attributes, opset.
EMPTY: list[tuple[str, list[Any], dict[str, Any], int]] = [
    *(
        (r, [f(2, 0, 3), (ints(1),)], {}, 18)
        for r in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
    ),
    *(
        (r, [f(2, 0, 3, dtype=np.int64), (ints(1),)], {}, 18)
        for r in ("ReduceSum", "ReduceMean", "ReduceMin", "ReduceProd")
    ),
    ("ReduceSum", [f(2, 0)], {}, 18),
    ("Conv", [f(1, 2, 0, 4), (f(3, 2, 3, 1),)], {"pads": [2, 0, 2, 0]}, 18),
    ("MatMul", [f(2, 0), (f(0, 3),)], {}, 18),
    ("MatMul", [f(2, 0), f(0, 3)], {}, 18),
    ("MatMul", [f(2, 3), (f(3, 0),)], {}, 18),
    ("MatMul", [f(0), f(0)], {}, 18),
    ("Gemm", [f(2, 0), (f(0, 3),), (f(3),)], {}, 18),
    ("Gemm", [f(2, 0), f(0, 3)], {}, 18),
    ("Gemm", [f(2, 3), (f(3, 0),)], {}, 18),
    ("InstanceNormalization", [f(1, 2, 0), (f(2),), (f(2),)], {}, 18),
    ("BatchNormalization", [f(1, 0, 3)] + [(f(0),)] * 4, {}, 18),
    ("Softmax", [f(2, 0)], {}, 18),
    ("Softmax", [f(2, 0, 3)], {"axis": 1}, 18),
    ("Softmax", [f(0, 3)], {}, 11),
    ("ArgMax", [f(2, 0)], {"axis": 0}, 18),
    ("TopK", [f(2, 0), (ints(0),)], {}, 18),
    ("Gather", [f(0, 3), f(0, dtype=np.int64)], {}, 18),
    ("Gather", [f(3, 0), ints(1, 2)], {}, 18),
    ("GatherND", [f(2, 0, 3), ints(0, 1).reshape(2, 1)], {}, 18),
    ("GatherND", [f(0, 3), np.zeros((0, 2), np.int64)], {}, 18),
    ("Concat", [f(0, 3), f(0, 3)], {"axis": 0}, 18),
    ("Concat", [f(0), f(2)], {"axis": 0}, 18),
    ("Split", [f(0, 3), (ints(0, 0),)], {"axis": 0}, 18),
    ("Split", [f(2, 3), (ints(0, 2),)], {"axis": 0}, 18),
    ("Reshape", [f(0, 3), (ints(-1, 3),)], {}, 18),
    ("Reshape", [f(2, 0, 3), (ints(2, -1),)], {}, 18),
    ("Reshape", [f(0, 3), (ints(0, 5),)], {"allowzero": 1}, 18),
    ("Expand", [f(1, 3), (ints(0, 3),)], {}, 18),
    ("Expand", [f(0, 3), (ints(1, 3),)], {}, 18),
    ("Tile", [f(2, 3), (ints(0, 1),)], {}, 18),
    ("Slice", [f(4, 3), (ints(3),), (ints(1),)], {}, 18),
    ("Pad", [f(0, 3), (ints(1, 0, 1, 0),)], {}, 18),
    ("Pad", [f(0, 3), (ints(0, 1, 0, 1),)], {"mode": "reflect"}, 18),
    ("Pad", [f(4, 3), (ints(-2, 0, -2, 0),)], {}, 18),
    ("Resize", [f(1, 1, 0, 2), "", (f(4),)], {}, 18),
    ("Resize", [f(0, 1, 2, 2), "", "", (ints(0, 1, 4, 4),)], {}, 18),
    ("Einsum", [f(2, 0), f(0, 3)], {"equation": "ij,jk->ik"}, 18),
    ("Einsum", [f(2, 0)], {"equation": "ij->i"}, 18),
    ("DynamicQuantizeLinear", [f(0, 3)], {}, 18),
    ("DepthToSpace", [f(1, 4, 0, 2)], {"blocksize": 2}, 18),
    ("SpaceToDepth", [f(1, 0, 2, 2)], {"blocksize": 2}, 18),
    ("LRN", [f(1, 0, 2, 2)], {"size": 3}, 18),
    ("Flatten", [f(2, 0, 3)], {}, 18),
    ("Flatten", [f(0, 3)], {"axis": 0}, 18),
    ("Range", [(np.array(3),), (np.array(1),), (np.array(1),)], {}, 18),
    ("ConstantOfShape", [(ints(0, 3),)], {}, 18),
    ("Equal", [f(0, 1), f(1, 3)], {}, 18),
]


def one_node(op: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> tuple[Case, dict[str, np.ndarray]]:
    k = Case(opset)
    feeds: dict[str, np.ndarray] = {}
    names = []
    for a in inputs:
        if isinstance(a, str):
            names.append("")
        elif isinstance(a, tuple):
            names.append(k.c(a[0], a[0].dtype))
        else:
            names.append(k.x(*(f"d{len(names)}{axis}" for axis in range(a.ndim)), dtype=a.dtype))
            feeds[names[-1]] = a
    k.op(op, *names, outputs={"TopK": 2, "Split": 2, "DynamicQuantizeLinear": 3}.get(op, 1), **attrs)
    return k, feeds


@pytest.mark.parametrize("at", range(len(EMPTY)), ids=lambda at: f"{EMPTY[at][0]}_{at}")
def test_axes_without_elements(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    k, feeds = one_node(*EMPTY[at])
    model = k.model()
    want = run_ort(model, feeds)
    for isa in isas():
        monkeypatch.setenv("SECATEUR_ISA", isa)
        agree(k, InferenceSession(model, threads=1, fallback=None).run(None, feeds), want, f"{EMPTY[at]}, {isa}")


def test_a_copied_empty_axis_leaves_minus_one_its_meaning() -> None:
    # ONNX Runtime divides zero by zero here and refuses.
    k, feeds = one_node("Reshape", [f(0, 3, 4), (ints(0, -1),)], {}, 18)
    assert InferenceSession(k.model(), threads=1).run(None, feeds)[0].shape == (0, 12)


@pytest.mark.parametrize("tune", ["fast", "full"])
def test_timing_a_net_without_rows(tune: str) -> None:
    k = Case()
    CASES["Conv_pool"](k)
    session = InferenceSession(k.model(), threads=1, tune=tune, fallback=None)
    assert session.run(None, k.feeds(0))[0].shape == (0, 3)
