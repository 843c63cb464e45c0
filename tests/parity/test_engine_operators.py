"""Each operator of the engine against ONNX Runtime, at the corners: strides, pads, ranks, dtypes, opsets."""

from collections.abc import Callable

import numpy as np
import pytest

from secateur.engine import InferenceSession

from .engine_graphs import EPS, Net, tolerance
from .test_engine_random import run_ort

Build = Callable[[Net], str]
CASES: dict[str, Build] = {}


def case(build: Build) -> Build:
    CASES[build.__name__] = build
    return build


def ints(net: Net, *values: int) -> str:
    return net.const(np.array(values, np.int64))


@case
def conv_one_by_one_strided(net: Net) -> str:
    return net.node("Conv", net.input((2, 8, 7, 9)), net.weight(5, 8, 1, 1), strides=[2, 2])


@case
def conv_asymmetric_pads(net: Net) -> str:
    return net.node("Conv", net.input((1, 3, 8, 8)), net.weight(4, 3, 3, 2), pads=[2, 0, 1, 1])


@case
def conv_same_upper(net: Net) -> str:
    return net.node("Conv", net.input((1, 3, 9, 8)), net.weight(4, 3, 3, 4), auto_pad="SAME_UPPER", strides=[2, 2])


@case
def conv_same_lower(net: Net) -> str:
    return net.node("Conv", net.input((1, 3, 9, 8)), net.weight(4, 3, 2, 4), auto_pad="SAME_LOWER", strides=[1, 3])


@case
def conv_depthwise_dilated(net: Net) -> str:
    x = net.input((2, 6, 12, 12))
    return net.node("Conv", x, net.weight(12, 1, 3, 3), net.weight(12), group=6, dilations=[2, 3], pads=[2, 3, 2, 3])


@case
def conv_grouped_sparse(net: Net) -> str:
    return net.node("Conv", net.input((1, 16, 9, 9)), net.weight(24, 4, 3, 3, density=0.1), group=4, pads=[1] * 4)


@case
def conv_all_zero_weights(net: Net) -> str:
    return net.node("Conv", net.input((1, 4, 6, 6)), net.weight(3, 4, 3, 3, density=0.0), net.weight(3))


@case
def conv_one_d(net: Net) -> str:
    return net.node("Conv", net.input((2, 4, 33)), net.weight(6, 4, 5, density=0.3), pads=[2, 2], strides=[2])


@case
def conv_kernel_as_large_as_input(net: Net) -> str:
    return net.node("Relu", net.node("Conv", net.input((3, 5, 6, 4)), net.weight(7, 5, 6, 4), net.weight(7)))


@case
def conv_weights_computed_at_run_time(net: Net) -> str:
    w = net.node("Reshape", net.input((1, 4 * 3 * 3 * 3)), ints(net, 4, 3, 3, 3))
    return net.node("Conv", net.input((1, 3, 6, 6)), w)


@case
def conv_bias_computed_at_run_time(net: Net) -> str:
    x = net.input((1, 3, 6, 6))
    y = net.node("Conv", x, net.weight(3, 3, 3, 3), net.input((3,)), pads=[1] * 4)
    return net.node("MaxPool", net.node("Relu", net.node("Add", y, x)), kernel_shape=[2, 2], strides=[2, 2])


@case
def conv_weights_at_run_time_with_all_attributes(net: Net) -> str:
    x, w, b = net.input((2, 4, 9, 8)), net.input((6, 2, 3, 2)), net.input((6,))
    y = net.node("Conv", x, w, b, group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 1])
    return net.node("Clip", y, net.const(np.float32(-1)), net.const(np.float32(2)))


@case
def conv_pool_odd_size(net: Net) -> str:
    y = net.node("Conv", net.input((1, 3, 9, 11)), net.weight(6, 3, 3, 3, density=0.2), net.weight(6))
    return net.node("MaxPool", net.node("Relu", y), kernel_shape=[2, 2], strides=[2, 2])


@case
def conv_pool_then_clip(net: Net) -> str:
    y = net.node("Conv", net.input((1, 3, 10, 10)), net.weight(6, 3, 3, 3), net.weight(6), pads=[1] * 4)
    y = net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    return net.node("Clip", y, net.const(np.float32(-0.2)), net.const(np.float32(0.3)))


@case
def conv_batch_norm_relu(net: Net) -> str:
    y = net.node("Conv", net.input((2, 3, 8, 8)), net.weight(6, 3, 3, 3, density=0.4), net.weight(6))
    var = net.const(np.full(6, 0.7, np.float32))
    return net.node(
        "Relu", net.node("BatchNormalization", y, net.weight(6, scale=1), net.weight(6), net.weight(6), var)
    )


@case
def batch_norm_alone(net: Net) -> str:
    var = net.const(np.array([0.5, 1, 2], np.float32))
    return net.node("BatchNormalization", net.input((2, 3, 5)), net.weight(3), net.weight(3), net.weight(3), var)


@case
def gemm_then_batch_norm(net: Net) -> str:
    y = net.node("Gemm", net.input((3, 7)), net.weight(7, 5), net.weight(5), alpha=0.5, beta=2.0)
    return net.node(
        "BatchNormalization", y, net.weight(5), net.weight(5), net.weight(5), net.const(np.ones(5, np.float32))
    )


@case
def residual_of_equal_shape(net: Net) -> str:
    x = net.input((1, 8, 6, 6))
    y = net.node("Conv", x, net.weight(8, 8, 3, 3, density=0.2), pads=[1] * 4)
    return net.node("Relu", net.node("Add", x, y))


@case
def residual_that_broadcasts(net: Net) -> str:
    y = net.node("Conv", net.input((2, 3, 6, 6)), net.weight(4, 3, 3, 3), net.weight(4))
    return net.node("Relu", net.node("Add", y, net.input((1, 4, 1, 1))))


@case
def residual_larger_than_the_layer(net: Net) -> str:
    y = net.node("Conv", net.input((1, 3, 3, 3)), net.weight(4, 3, 3, 3))
    return net.node("Relu", net.node("Add", y, net.input((2, 4, 5, 5))))


@case
def residual_with_itself(net: Net) -> str:
    y = net.node("Conv", net.input((1, 3, 5, 5)), net.weight(4, 3, 3, 3))
    return net.node("Add", y, y)


@case
def two_convolutions_meet(net: Net) -> str:
    x = net.input((1, 4, 8, 8))
    a = net.node("Conv", x, net.weight(6, 4, 3, 3), strides=[2, 2], pads=[1] * 4)
    b = net.node("Conv", x, net.weight(6, 4, 1, 1), strides=[2, 2])
    return net.node("LeakyRelu", net.node("Add", a, b), alpha=0.2)


@case
def option_a_shortcut(net: Net) -> str:
    x = net.input((2, 4, 8, 8))
    y = net.node("Conv", x, net.weight(8, 4, 3, 3), strides=[2, 2], pads=[1] * 4)
    s = net.node("Slice", x, ints(net, 0, 0), ints(net, 2**62, 2**62), ints(net, 2, 3), ints(net, 2, 2))
    s = net.node("Pad", s, ints(net, 0, 2, 0, 0, 0, 2, 0, 0), net.const(np.float32(0)))
    return net.node("Relu", net.node("Add", y, s))


@case
def dead_channels(net: Net) -> str:
    w = net.weight(8, 3, 3, 3)
    proto = net.constants[-1]
    a = np.frombuffer(proto.raw_data, np.float32).reshape(8, 3, 3, 3).copy()
    a[[1, 4, 5]] = 0
    proto.raw_data = a.tobytes()
    bias = np.array([1, 0, -1, 2, 0, 0.5, 0, 1], np.float32)  # row 5: no weights, but a bias
    y = net.node("Relu", net.node("Conv", net.input((2, 3, 6, 6)), w, net.const(bias)))
    y = net.node("Flatten", net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), axis=1)
    return net.node("Gemm", y, net.weight(32, 4, density=0.3))


@case
def gemm_transposed_both(net: Net) -> str:
    return net.node("Gemm", net.input((6, 3)), net.weight(5, 6), net.const(np.float32([[0.5]])), transA=1, transB=1)


@case
def gemm_matrix_c(net: Net) -> str:
    return net.node("Gemm", net.input((3, 6)), net.weight(6, 5), net.weight(3, 5), beta=0.3)


@case
def gemm_column_c(net: Net) -> str:
    return net.node("Gemm", net.input((3, 6)), net.weight(6, 5), net.weight(3, 1))


@case
def gemm_of_two_inputs(net: Net) -> str:
    return net.node("Gemm", net.input((3, 6)), net.input((6, 5)), net.input((5,)), alpha=2.0)


@case
def matmul_rank_three(net: Net) -> str:
    y = net.node("MatMul", net.input((2, 5, 8)), net.weight(8, 9, density=0.2))
    return net.node("Relu", net.node("Add", y, net.weight(9)))


@case
def matmul_batched_inputs(net: Net) -> str:
    return net.node("MatMul", net.input((2, 1, 5, 8)), net.input((3, 8, 4)))


@case
def matmul_vectors(net: Net) -> str:
    return net.node("MatMul", net.input((8,)), net.weight(8, 5))


@case
def matmul_sparse_batch(net: Net) -> str:
    return net.node("MatMul", net.input((37, 300)), net.weight(300, 70, density=0.05, scale=0.1))


@case
def max_pool_padded(net: Net) -> str:
    return net.node("MaxPool", net.input((1, 3, 7, 8)), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 2, 1])


@case
def max_pool_dilated_ceil(net: Net) -> str:
    return net.node(
        "MaxPool", net.input((1, 2, 9, 9)), kernel_shape=[2, 2], strides=[2, 2], dilations=[2, 2], ceil_mode=1
    )


@case
def average_pool_ceil(net: Net) -> str:
    return net.node("AveragePool", net.input((1, 3, 8, 8)), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


@case
def average_pool_counts_pads(net: Net) -> str:
    x = net.input((1, 3, 7, 7))
    return net.node("AveragePool", x, kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1)


@case
def average_pool_same(net: Net) -> str:
    return net.node("AveragePool", net.input((1, 3, 7)), kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER")


@case
def global_max_pool(net: Net) -> str:
    return net.node("GlobalMaxPool", net.input((2, 3, 4, 5)))


@case
def reduce_middle_axis(net: Net) -> str:
    return net.node("ReduceMean", net.input((2, 3, 4, 5)), axes=[1, -1], keepdims=1)


@case
def reduce_all(net: Net) -> str:
    return net.node("ReduceSum", net.input((2, 3, 4)), keepdims=0)


@case
def softmax_inner_axis(net: Net) -> str:
    return net.node("Softmax", net.input((2, 5, 3)), axis=1)


@case
def softmax_before_opset_13(net: Net) -> str:
    net.opset = 11
    return net.node("Softmax", net.input((2, 5, 3)), axis=1)


@case
def transpose_all(net: Net) -> str:
    return net.node("Transpose", net.input((2, 3, 4, 5)), perm=[3, 1, 0, 2])


@case
def slice_backwards(net: Net) -> str:
    return net.node("Slice", net.input((5, 7)), ints(net, -1, 6), ints(net, -9, 0), ints(net, 0, 1), ints(net, -1, -2))


@case
def pad_negative(net: Net) -> str:
    return net.node("Pad", net.input((4, 5)), ints(net, -1, 2, 1, -2), net.const(np.float32(3)))


@case
def concat_three(net: Net) -> str:
    return net.node("Concat", net.input((2, 3)), net.input((2, 1)), net.input((2, 4)), axis=-1)


@case
def shape_arithmetic(net: Net) -> str:
    x = net.input((2, 3, 4), declared=("n", 3, 4))
    first = net.node("Gather", net.node("Shape", x), net.const(np.int64(0)), axis=0)
    target = net.node("Concat", net.node("Unsqueeze", first, ints(net, 0)), ints(net, -1), axis=0)
    return net.node("Reshape", x, target)


@case
def squeeze_unsqueeze(net: Net) -> str:
    return net.node("Unsqueeze", net.node("Squeeze", net.input((2, 1, 3, 1)), ints(net, 1, 3)), ints(net, 0, -1))


@case
def broadcast_both_ways(net: Net) -> str:
    return net.node("Div", net.node("Mul", net.input((3, 1, 4)), net.input((2, 1))), net.weight(4, scale=3.0))


@case
def activations(net: Net) -> str:
    x = net.input((3, 70))
    y = net.node("Add", net.node("Sigmoid", x), net.node("Tanh", x))
    return net.node("Mul", net.node("LeakyRelu", y, alpha=0.3), net.node("Exp", net.node("Neg", net.node("Abs", x))))


@case
def quantized_weights(net: Net) -> str:
    q = net.const(net.rng.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8))
    scale = net.const(np.linspace(0.01, 0.03, 6).astype(np.float32))
    w = net.node("DequantizeLinear", q, scale, net.const(np.zeros(6, np.int8)), axis=0)
    return net.node("Relu", net.node("Conv", net.input((1, 3, 8, 8)), w, net.weight(6)))


@case
def identity_of_an_initializer(net: Net) -> str:
    # torch's exporter shares equal biases by Identity.
    bias = net.weight(6)
    y = net.node("Conv", net.input((1, 3, 5, 5)), net.weight(6, 3, 3, 3), bias)
    return net.node("Conv", y, net.weight(6, 6, 3, 3), net.node("Identity", bias))


@case
def mul_of_one_input_twice(net: Net) -> str:
    x = net.input((2, 3))
    return net.node("Mul", x, x)


@case
def triangle_far_outside_of_the_matrix(net: Net) -> str:
    x = net.input((2, 3, 5))
    far = [net.node("Trilu", x, net.const(np.int64(k)), upper=u) for k in (-(2**62), -9, 9, 2**62) for u in (0, 1)]
    return net.node("Concat", *far, axis=0)


@case
def triangle_of_every_diagonal(net: Net) -> str:
    x = net.input((3, 5))
    parts = [net.node("Trilu", x, net.const(np.int64(k)), upper=u) for k in range(-4, 6) for u in (0, 1)]
    return net.node("Concat", *parts, net.node("Trilu", x), axis=0)


@case
def triangle_of_minus_infinity_as_a_causal_mask(net: Net) -> str:
    full = net.node("Expand", net.const(np.float32(-np.inf)), ints(net, 6, 6))
    mask = net.node("Trilu", full, net.const(np.int64(1)))
    return net.node("Softmax", net.node("Add", net.input((2, 6, 6)), mask))


@case
def log_sum_exp_of_large_and_of_hidden_values(net: Net) -> str:
    x = net.node("Mul", net.input((4, 7)), net.const(np.float32(300)))
    hidden = net.node("Add", x, net.const(np.array([0, -np.inf, 0, 0, -np.inf, 0, 0], np.float32)))
    return net.node("ReduceLogSumExp", hidden, axes=[1])


@case
def norms_over_two_axes(net: Net) -> str:
    x = net.input((3, 4, 5))
    parts = [net.node(op, x, axes=[0, -1]) for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare")]
    return net.node("Concat", *parts, axis=0)


@case
def cast_like_bool_and_back(net: Net) -> str:
    x = net.input((2, 3))
    positive = net.node("Greater", x, net.const(np.float32(0)))
    return net.node("Add", net.node("CastLike", positive, x), net.node("CastLike", net.node("Size", x), x))


@case
def not_a_number_is_found_and_replaced(net: Net) -> str:
    x = net.node("Sqrt", net.input((5, 9)))
    return net.node("Where", net.node("IsNaN", x), net.const(np.float32(0)), x)


@pytest.mark.parametrize("name", sorted(CASES))
def test_operator_agrees_with_onnxruntime(name: str) -> None:
    net = Net(np.random.default_rng(7))
    output = CASES[name](net)
    model = net.model(output)
    want = run_ort(model, net.feeds)
    got = InferenceSession(model, threads=1).run(None, net.feeds)
    allowed = tolerance(run_ort, model, net.feeds, want)[0]
    assert got[0].shape == want[0].shape
    assert np.max(np.abs(got[0] - want[0]), initial=0) <= allowed


@pytest.mark.parametrize("c_shape", [None, (5,), (1,), (3, 1)])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_gemm_scales_product_and_sum(
    trans_a: int, trans_b: int, constant: bool, c_shape: tuple[int, ...] | None
) -> None:
    """Y = alpha A' B' + beta C on small whole numbers: every kernel's sums are exact, so equal to the bit."""
    rng = np.random.default_rng(11)
    a, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((3, 6), (6, 5)))
    b[rng.random(b.shape) < 0.4] = 0
    wanted = 0.25 * (a.astype(np.float64) @ b)
    net = Net(rng)
    left, right = (np.ascontiguousarray(m.T) if turned else m for m, turned in ((a, trans_a), (b, trans_b)))
    operands = [net.input(left.shape), net.const(right) if constant else net.input(right.shape)]
    net.feeds |= dict(zip(net.feeds, (left, right), strict=False))
    if c_shape is not None:
        c = rng.integers(-4, 5, c_shape).astype(np.float32)
        wanted += -3.0 * c
        operands.append(net.const(c))
    y = net.node("Gemm", *operands, transA=trans_a, transB=trans_b, alpha=0.25, beta=-3.0)
    got = InferenceSession(net.model(y), threads=1).run(None, net.feeds)[0]
    np.testing.assert_array_equal(got, wanted)


def test_quantize_pairs_are_exact() -> None:
    """Q -> DQ on activations: the integers of ONNX Runtime, ties to even, saturated; so equal floats to the bit."""
    for kind, dtype in ((np.uint8, "uint8"), (np.int8, "int8")):
        net = Net(np.random.default_rng(3))
        x = net.input((1, 4096))
        halves = np.arange(-300, 300, dtype=np.float32) * np.float32(0.5) * np.float32(0.25)
        net.feeds[x][0, : halves.size] = halves
        zero = net.const(np.array(11, kind))
        scale = net.const(np.float32(0.25))
        y = net.node("DequantizeLinear", net.node("QuantizeLinear", x, scale, zero), scale, zero)
        model = net.model(y)
        got = InferenceSession(model, threads=1).run(None, net.feeds)[0]
        assert np.array_equal(got, run_ort(model, net.feeds)[0]), dtype


def test_batch_norm_folding_is_close_to_exact() -> None:
    """Folding in float64 rounds each weight once: against float64 arithmetic the error is that of float32 products."""
    rng = np.random.default_rng(1)
    net = Net(rng)
    x = net.input((4, 16))
    w, b, gamma, beta, mean = (rng.standard_normal(s).astype(np.float32) for s in ((16, 8), (8,), (8,), (8,), (8,)))
    var = rng.uniform(0.01, 3, 8).astype(np.float32)
    y = net.node("Gemm", x, net.const(w), net.const(b))
    y = net.node("BatchNormalization", y, *(net.const(v) for v in (gamma, beta, mean, var)), epsilon=1e-3)
    model = net.model(y)
    session = InferenceSession(model, threads=1)
    got = session.run(None, net.feeds)[0]
    assert any("BatchNormalization" in note for note in session.notes)
    assert len(session.explain(repeats=0)) == 1
    f = [v.astype(np.float64) for v in (net.feeds[x], w, b, gamma, beta, mean, var)]
    scale = f[3] / np.sqrt(f[6] + float(np.float32(1e-3)))
    exact = (f[0] @ f[1] + f[2] - f[5]) * scale + f[4]
    # gamma_n bound of a dot product of 16 terms and a bias, on the folded magnitudes.
    size = np.abs(f[0]) @ np.abs(f[1] * scale) + np.abs((f[2] - f[5]) * scale + f[4])
    assert np.all(np.abs(got - exact) <= 20 * EPS * size)
