"""Functions that exporters write in small operators: put together again, and still ONNX Runtime's numbers."""

from collections.abc import Callable

import numpy as np
import pytest

from secateur.engine import InferenceSession

from .engine_graphs import Net, tolerance
from .test_engine_random import run_ort

Build = Callable[[Net], str]
# name -> (builder, the kernels the plan must come down to)
PATTERNS: dict[str, tuple[Build, list[str]]] = {}


def pattern(*kernels: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        PATTERNS[build.__name__] = (build, list(kernels))
        return build

    return add


def number(net: Net, value: float) -> str:
    return net.const(np.float32(value))


def axes(net: Net, *values: int) -> str:
    return net.const(np.array(values, np.int64))


@pattern("unary_f32")
def gelu_torch(net: Net) -> str:
    x = net.input((3, 50))
    inner = net.node("Add", net.node("Erf", net.node("Div", x, number(net, np.sqrt(2)))), number(net, 1))
    return net.node("Mul", net.node("Mul", x, inner), number(net, 0.5))


@pattern("unary_f32")
def gelu_half_first(net: Net) -> str:
    x = net.input((3, 50))
    inner = net.node("Add", number(net, 1), net.node("Erf", net.node("Mul", x, number(net, np.sqrt(0.5)))))
    return net.node("Mul", net.node("Mul", x, number(net, 0.5)), inner)


@pattern("unary_f32")
def gelu_half_of_the_gate(net: Net) -> str:
    x = net.input((3, 50))
    inner = net.node("Add", net.node("Erf", net.node("Mul", number(net, np.sqrt(0.5)), x)), number(net, 1))
    return net.node("Mul", x, net.node("Mul", number(net, 0.5), inner))


@pattern("unary_f32")
def gelu_tanh(net: Net) -> str:
    x = net.input((3, 50))
    cube = net.node("Mul", net.node("Pow", x, number(net, 3)), number(net, 0.044715))
    inner = net.node("Tanh", net.node("Mul", net.node("Add", x, cube), number(net, np.sqrt(2 / np.pi))))
    gate = net.node("Add", inner, number(net, 1))
    return net.node("Mul", net.node("Mul", x, number(net, 0.5)), gate)


@pattern("unary_f32")
def silu(net: Net) -> str:
    x = net.input((3, 50))
    return net.node("Mul", net.node("Sigmoid", x), x)


@pattern("unary_f32")
def mish(net: Net) -> str:
    x = net.input((3, 50))
    return net.node("Mul", x, net.node("Tanh", net.node("Softplus", x)))


@pattern("unary_f32")
def hard_swish_torch(net: Net) -> str:
    x = net.input((3, 50))
    clip = net.node("Clip", net.node("Add", x, number(net, 3)), number(net, 0), number(net, 6))
    return net.node("Div", net.node("Mul", x, clip), number(net, 6))


@pattern("unary_f32")
def hard_swish_keras(net: Net) -> str:
    x = net.input((3, 50))
    clip = net.node("Clip", net.node("Add", x, number(net, 3)), number(net, 0), number(net, 6))
    return net.node("Mul", x, net.node("Mul", clip, number(net, 1 / 6)))


@pattern("unary_f32")
def hard_swish_of_hard_sigmoid(net: Net) -> str:
    x = net.input((3, 50))
    return net.node("Mul", x, net.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))


@pattern("unary_f32", "binary_f32")
def a_gate_of_something_else_stays(net: Net) -> str:
    return net.node("Mul", net.node("Sigmoid", net.input((3, 50))), net.input((3, 50)))


def written_norm(net: Net, x: str, n: int, centre: bool = True, bias: bool = True) -> str:
    d = net.node("Sub", x, net.node("ReduceMean", x, axes=[-1])) if centre else x
    mean = net.node("ReduceMean", net.node("Pow", d, number(net, 2)), axes=[-1])
    y = net.node("Div", d, net.node("Sqrt", net.node("Add", mean, number(net, 1e-3))))
    y = net.node("Mul", y, net.weight(n, scale=1.0))
    return net.node("Add", y, net.weight(n, scale=1.0)) if bias else y


@pattern("layer_norm_f32")
def layer_norm(net: Net) -> str:
    return written_norm(net, net.input((2, 5, 37)), 37)


@pattern("layer_norm_f32")
def layer_norm_without_bias(net: Net) -> str:
    return written_norm(net, net.input((2, 5, 37)), 37, bias=False)


@pattern("rms_norm_f32")
def rms_norm(net: Net) -> str:
    return written_norm(net, net.input((2, 5, 37)), 37, centre=False, bias=False)


@pattern("layer_norm_f32")
def layer_norm_takes_the_residual(net: Net) -> str:
    return written_norm(net, net.node("Add", net.input((2, 5, 37)), net.input((2, 5, 37))), 37)


@pattern("add_act_f32", "layer_norm_f32", "add_act_f32")
def layer_norm_leaves_a_sum_that_is_read_again(net: Net) -> str:
    x = net.node("Add", net.input((2, 5, 37)), net.input((2, 5, 37)))
    return net.node("Add", x, written_norm(net, x, 37))


def heads(net: Net, x: str, batch: int, rows: int, n: int, dim: int, perm: list[int]) -> str:
    shape = axes(net, batch, rows, n, dim)
    return net.node("Transpose", net.node("Reshape", x, shape), perm=perm)


@pattern("attention_f32_")
def attention_bert(net: Net) -> str:
    q, k, v = (net.input((2, 19, 48)) for _ in range(3))
    a, b, c = (heads(net, x, 2, 19, 4, 12, p) for x, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    score = net.node("Div", net.node("MatMul", a, b), number(net, np.sqrt(12)))
    score = net.node("Softmax", net.node("Add", score, net.input((2, 1, 1, 19))), axis=-1)
    y = net.node("Transpose", net.node("MatMul", score, c), perm=[0, 2, 1, 3])
    return net.node("Reshape", y, axes(net, 2, 19, 48))


@pattern("attention_f32_")
def attention_scaled_operands(net: Net) -> str:
    q, k, v = (net.input((2, 3, 17, 8)) for _ in range(3))
    root = number(net, 8**-0.25)
    key = net.node("Mul", net.node("Transpose", k, perm=[0, 1, 3, 2]), root)
    score = net.node("MatMul", net.node("Mul", q, root), key)
    return net.node("MatMul", net.node("Softmax", score, axis=-1), v)


@pattern("attention_f32_")
def attention_rank_three(net: Net) -> str:
    q, k, v = net.input((6, 10, 8)), net.input((6, 21, 8)), net.input((6, 21, 5))
    score = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 2, 1]))
    return net.node("MatMul", net.node("Softmax", score, axis=-1), v)


def mask_that_hides_a_row(net: Net, *shape: int) -> str:
    mask = net.input(shape)
    net.feeds[mask][..., 3, :] = -np.inf
    return mask


@pattern("attention_f32_")
def attention_without_nan(net: Net) -> str:
    """As torch's own exporter writes it."""
    q, k, v = (net.input((2, 3, 17, 8)) for _ in range(3))
    score = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    score = net.node("Softmax", net.node("Add", score, mask_that_hides_a_row(net, 17, 17)), axis=-1)
    score = net.node("Where", net.node("IsNaN", score), number(net, 0), score)
    y = net.node("Transpose", net.node("MatMul", score, v), perm=[0, 2, 1, 3])
    return net.node("Reshape", y, axes(net, 2, 17, 24))


@pattern("attention_f32_")
def attention_of_rows_that_see(net: Net) -> str:
    """As our exporter writes it."""
    q, k, v = (net.input((2, 3, 17, 8)) for _ in range(3))
    mask = mask_that_hides_a_row(net, 2, 1, 17, 17)
    sees = net.node("Greater", net.node("ReduceMax", mask, axes=[-1]), number(net, -np.inf))
    score = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    score = net.node("Add", score, net.node("Where", sees, mask, number(net, 0)))
    y = net.node("MatMul", net.node("Softmax", score, axis=-1), v)
    y = net.node("Mul", y, net.node("Where", sees, number(net, 1), number(net, 0)))
    return net.node("Reshape", net.node("Transpose", y, perm=[0, 2, 1, 3]), axes(net, 2, 17, 24))


@pattern("reduce_", "compare_", "where_", "attention_f32_", "where_", "binary_f32")
def attention_whose_rows_are_chosen_by_another_mask_keeps_the_choice(net: Net) -> str:
    q, k, v = (net.input((2, 3, 17, 8)) for _ in range(3))
    mask, other = net.input((17, 17)), mask_that_hides_a_row(net, 17, 17)
    sees = net.node("Greater", net.node("ReduceMax", other, axes=[-1]), number(net, -np.inf))
    score = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    score = net.node("Add", score, net.node("Where", sees, mask, number(net, 0)))
    y = net.node("MatMul", net.node("Softmax", score, axis=-1), v)
    return net.node("Mul", y, net.node("Where", sees, number(net, 1), number(net, 0)))


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("opset", [13, 17])
def test_pattern_is_found_and_right(name: str, opset: int) -> None:
    build, kernels = PATTERNS[name]
    net = Net(np.random.default_rng(5), opset=opset)
    output = build(net)
    model = net.model(output)
    session = InferenceSession(model, threads=1)
    found = [row["kernel"] for row in session.explain(repeats=0)]
    assert len(found) == len(kernels)
    assert all(f.startswith(k) for f, k in zip(found, kernels, strict=True)), found
    want = run_ort(model, net.feeds)
    got = session.run(None, net.feeds)
    assert got[0].shape == want[0].shape
    assert np.max(np.abs(got[0] - want[0])) <= tolerance(run_ort, model, net.feeds, want)[0]
