"""The passes on hand-made graphs: each keeps the function bit by bit, and takes away what it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.export import _canonical as canonical
from secateur.export import _simplify
from secateur.shell import runtimes

F = np.float32


def model(nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], **constants: Any) -> Any:
    def infos(table: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in table.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


def simplified(raw: Any, params: frozenset[str] = frozenset(), **options: Any) -> Any:
    g = canonical.take_apart(raw, params)
    _simplify.simplify(g, **options)
    canonical.shorten_names(g)
    return canonical.assemble(g)


def kinds(m: Any) -> list[str]:
    return [n.op_type for n in m.graph.node]


def same(a: Any, b: Any, *shape: int) -> None:
    ort = runtimes.onnxruntime()
    x = np.random.default_rng(0).normal(size=shape).astype(F)

    def run(m: Any) -> Any:
        session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})

    for y, z in zip(run(a), run(b), strict=True):
        assert np.array_equal(y, z)


@pytest.mark.parametrize("op", ["Bernoulli", "Multinomial", "RandomNormalLike"])
def test_random_calls_are_neither_run_ahead_nor_made_once_for_two(op: str) -> None:
    options = {"dtype": TensorProto.INT64} if op == "Multinomial" else {}
    raw = model(
        [
            *(helper.make_node(op, ["p"], [f"r{i}"], **options) for i in range(2)),
            *(helper.make_node("Cast", [f"r{i}"], [f"f{i}"], to=TensorProto.FLOAT) for i in range(2)),
            helper.make_node("Add", ["x", "f0"], ["h"]),
            helper.make_node("Add", ["h", "f1"], ["y"]),
        ],
        {"x": [1, 1]},
        {"y": [1, 1]},
        p=np.full((1, 1), 0.5, F),
    )
    assert kinds(simplified(raw)).count(op) == 2


@pytest.mark.parametrize(("rows", "read"), [(1, 5), (3, 2), (2, 3)])
@pytest.mark.parametrize("axis", [1, -1, 0])
def test_entries_of_a_long_table_are_read_ahead(rows: int, read: int, axis: int) -> None:
    """A BERT without `token_type_ids` reads its own from a row of 512; ONNX's reference cannot."""
    table = np.arange(rows * 40, dtype=F).reshape(rows, 40)
    index = np.array([[7, 39, -40, 0, 33], [1, 2, 3, 4, 5], [39, 38, 37, 36, 35]], np.int64)[:rows, :read]
    if axis == 0:
        table, index = np.ascontiguousarray(table.T), np.ascontiguousarray(index.T)
    raw = model(
        [
            helper.make_node("GatherElements", ["t", "i"], ["g"], axis=axis),
            helper.make_node("Add", ["x", "g"], ["y"]),
        ],
        {"x": list(index.shape)},
        {"y": list(index.shape)},
        t=table,
        i=index,
    )
    short = simplified(raw)
    assert kinds(short) == ["Add"]
    same(raw, short, *index.shape)


def test_shared_identity_initializers_are_folded() -> None:
    """The older exporter stores equal tensors once and hands them on through Identity."""
    rng = np.random.default_rng(0)
    raw = model(
        [
            helper.make_node("Identity", ["b0"], ["b1"]),
            helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Identity", ["r"], ["r2"]),
            helper.make_node("Gemm", ["r2", "w1", "b1"], ["y"], transB=1),
        ],
        {"x": ["n", 3]},
        {"y": ["n", 3]},
        b0=np.zeros(3, F) + 1,
        w0=rng.normal(size=(3, 3)).astype(F),
        w1=rng.normal(size=(3, 3)).astype(F),
    )
    out = simplified(raw, frozenset({"b0", "w0", "w1"}))
    assert kinds(out) == ["Gemm", "Relu", "Gemm"]
    assert [t.name for t in out.graph.initializer] == ["w0", "b0", "w1"]
    same(raw, out, 4, 3)


def test_calls_that_do_nothing_go() -> None:
    raw = model(
        [
            helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["a", "one"], ["b"]),
            helper.make_node("Pad", ["b", "none"], ["c"]),
            helper.make_node("Slice", ["c", "zero", "big", "axis"], ["d"]),
            helper.make_node("Dropout", ["d"], ["e"]),
            helper.make_node("Concat", ["e"], ["f"], axis=1),
            helper.make_node("Reshape", ["f", "shape"], ["g"]),
            helper.make_node("Relu", ["g"], ["y"]),
        ],
        {"x": [2, 3]},
        {"y": [2, 3]},
        one=F(1),
        none=np.zeros(4, np.int64),
        zero=np.array([0]),
        big=np.array([2**63 - 1]),
        axis=np.array([1]),
        shape=np.array([2, 3]),
    )
    out = simplified(raw)
    assert kinds(out) == ["Relu"]
    same(raw, out, 2, 3)


def test_an_identity_between_input_and_output_stays() -> None:
    raw = model([helper.make_node("Identity", ["x"], ["y"])], {"x": [2]}, {"y": [2]})
    assert kinds(simplified(raw)) == ["Identity"]
    raw = model(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["y"])], {"x": [2]}, {"y": [2]}
    )
    out = simplified(raw)
    assert kinds(out) == ["Relu"]
    assert list(out.graph.node[0].output) == ["y"]


def test_computed_shapes_become_constants() -> None:
    raw = model(
        [
            helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
            helper.make_node("Constant", [], ["rest"], value_ints=[3, 2]),
            helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["r"]),
            helper.make_node("Relu", ["r"], ["q"]),
            helper.make_node("Constant", [], ["flat"], value_ints=[6]),
            helper.make_node("Concat", ["s", "flat"], ["u"], axis=0),
            helper.make_node("Reshape", ["q", "u"], ["y"]),
        ],
        {"x": ["n", 6]},
        {"y": ["n", 6]},
    )
    out = simplified(raw)
    assert kinds(out) == ["Reshape", "Relu", "Flatten"]
    assert numpy_helper.to_array(out.graph.initializer[0]).tolist() == [0, 3, 2]
    same(raw, out, 5, 6)


def test_slices_merge_and_whole_axes_are_left_out() -> None:
    raw = model(
        [
            helper.make_node("Slice", ["x", "zero", "big", "two", "step"], ["a"]),
            helper.make_node("Slice", ["a", "zero", "big", "three", "step"], ["b"]),
            helper.make_node("Slice", ["b", "zeros", "bigs", "all"], ["c"]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        {"x": ["n", 2, 6, 6]},
        {"y": ["n", 2, 3, 3]},
        zero=np.array([0]),
        big=np.array([2**63 - 1]),
        two=np.array([2]),
        three=np.array([3]),
        step=np.array([2]),
        zeros=np.array([0, 0]),
        bigs=np.array([2, 2**63 - 1]),
        all=np.array([1, 3]),
    )
    out = simplified(raw)
    assert kinds(out) == ["Slice", "Relu"]
    same(raw, out, 2, 2, 6, 6)


def test_means_over_positions_are_global_pools() -> None:
    raw = model(
        [
            helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
            helper.make_node("Flatten", ["a"], ["f"]),
            helper.make_node("Add", ["f", "m"], ["y"]),
        ],
        {"x": ["n", 3, 4, 4]},
        {"y": ["n", 3]},
        axes=np.array([-1, -2]),
    )
    out = simplified(raw)
    assert sorted(kinds(out)) == ["Add", "Flatten", "GlobalAveragePool"]


def test_only_what_equals_its_default_is_dropped() -> None:
    raw = model(
        [
            helper.make_node(
                "Conv", ["x", "w", "zero"], ["a"],
                kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1, auto_pad="NOTSET",
            ),
            helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0),
            helper.make_node("LeakyRelu", ["b"], ["c"], alpha=0.01),
            helper.make_node("LeakyRelu", ["c"], ["y"], alpha=0.2),
        ],
        {"x": ["n", 1, 4, 4]},
        {"y": ["n", 2, 2, 2]},
        w=np.ones((2, 1, 3, 3), F),
        zero=np.zeros(2, F),
    )  # fmt: skip
    out = simplified(raw, frozenset({"w"}))
    attributes = [{a.name for a in n.attribute} for n in out.graph.node]
    assert attributes == [{"pads"}, {"kernel_shape", "strides"}, set(), {"alpha"}]
    assert len(out.graph.node[0].input) == 2  # the zero bias was nobody's parameter
    assert len(simplified(raw, frozenset({"w", "zero"})).graph.node[0].input) == 3
    same(raw, out, 2, 1, 4, 4)


def test_a_norm_folds_only_into_a_convolution_it_has_for_itself() -> None:
    rng = np.random.default_rng(1)
    shared = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n1"]),
        helper.make_node("Add", ["a", "n1"], ["y"]),
    ]
    values = {k: rng.uniform(0.5, 1.5, 2).astype(F) for k in "gbmv"} | {"w": rng.normal(size=(2, 1, 1, 1)).astype(F)}
    raw = model(shared, {"x": [1, 1, 2, 2]}, {"y": [1, 2, 2, 2]}, **values)
    assert "BatchNormalization" in kinds(simplified(raw, frozenset(values), fold_norms=True))
    raw = model(shared[:2], {"x": [1, 1, 2, 2]}, {"n1": [1, 2, 2, 2]}, **values)
    assert kinds(simplified(raw, frozenset(values), fold_norms=True)) == ["Conv"]
