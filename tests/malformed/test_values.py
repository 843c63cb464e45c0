"""Values and sizes a run cannot follow: indices outside their axis, files and shapes that ask for giant work."""

import threading
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.errors import FormatError, UnsupportedError, UsageError

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[Any]]], constants: dict[str, np.ndarray]
) -> bytes:
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def words(kind: int = TensorProto.INT64, axis: int = 0) -> bytes:
    node = helper.make_node("Gather", ["table", "i"], ["y"], name="embedding", axis=axis)
    return model([node], {"i": (kind, ["n", "m"])}, {"table": TABLE})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_indices_from_the_end(kind: Any, threads: int) -> None:
    session = InferenceSession(words(helper.np_dtype_to_tensor_dtype(np.dtype(kind))), threads=threads)
    i = np.array([[0, -1, -4, 3]], kind)
    assert np.array_equal(session.run(None, {"i": i})[0], TABLE[i])


@pytest.mark.parametrize("bad", [4, -5, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_an_index_beyond_the_axis(kind: Any, bad: int) -> None:
    session = InferenceSession(words(helper.np_dtype_to_tensor_dtype(np.dtype(kind))), threads=1)
    i = np.array([[0, 1], [2, bad], [bad, 0]], kind)
    with pytest.raises(
        UsageError, match=rf"'embedding' \(Gather\): index {bad} \(number 3 of the indices\).* -4 to 3;"
    ):
        session.run(None, {"i": i})
    good = np.array([[3, 1]], kind)
    assert np.array_equal(session.run(None, {"i": good})[0], TABLE[good])


@pytest.mark.parametrize("bad", [2**63 - 1, -(2**63)])
def test_indices_at_the_ends_of_int64(bad: int) -> None:
    with pytest.raises(UsageError, match=f"index {bad}"):
        InferenceSession(words(axis=1)).run(None, {"i": np.array([[bad]])})


def test_an_index_computed_while_running() -> None:
    nodes = [helper.make_node("Add", ["i", "one"], ["j"]), helper.make_node("Gather", ["table", "j"], ["y"], name="g")]
    net = model(nodes, {"i": (TensorProto.INT64, ["n"])}, {"table": TABLE, "one": np.array([1], np.int64)})
    session = InferenceSession(net)
    assert session.run(None, {"i": np.array([2])})[0].shape == (1, 3)
    with pytest.raises(UsageError, match=r"'g' \(Gather\): index 4 \(number 1 of"):
        session.run(None, {"i": np.array([2, 3])})


@pytest.mark.parametrize(("bad", "number"), [((-4, 0), 2), ((0, 3), 3), ((2**63 - 1, 0), 2), ((0, -(2**63)), 3)])
def test_a_tuple_of_indices_beyond_its_axes(bad: tuple[int, int], number: int) -> None:
    # Of four words of three numbers.
    node = helper.make_node("GatherND", ["table", "i"], ["y"], name="cells", batch_dims=0)
    session = InferenceSession(model([node], {"i": (TensorProto.INT64, ["n", 2])}, {"table": TABLE[:3]}), threads=1)
    asked = next(v for v in bad if not -3 <= v < 3)
    with pytest.raises(UsageError, match=rf"'cells' \(GatherND\): index {asked} \(number {number} of the indices\)"):
        session.run(None, {"i": np.array([[1, 2], bad])})
    assert np.array_equal(session.run(None, {"i": np.array([[-3, -1], [2, 0]])})[0], TABLE[[0, 2], [2, 0]])


@pytest.mark.parametrize(
    ("shape", "attrs", "said"),
    [
        ((2, 3), {}, r"tuples of 3 indices into \[4, 3\]"),
        ((2, 0), {}, r"tuples of 0 indices"),
        ((4, 1), {"batch_dims": 2}, r"batch_dims 2 does not fit"),
        ((4, 1), {"batch_dims": -1}, r"batch_dims -1 does not fit"),
        ((2, 1), {"batch_dims": 1}, r"batches of \[4, 3\] and \[2, 1\] differ"),
    ],
)
def test_tuples_that_do_not_fit_the_table(shape: tuple[int, int], attrs: dict[str, int], said: str) -> None:
    node = helper.make_node("GatherND", ["table", "i"], ["y"], name="cells", **attrs)
    net = model([node], {"i": (TensorProto.INT64, list(shape))}, {"table": TABLE})
    with pytest.raises(FormatError, match=said):
        InferenceSession(net, threads=1).run(None, {"i": np.zeros(shape, np.int64)})


def test_a_constant_index_beyond_the_axis() -> None:
    node = helper.make_node("Gather", ["table", "i"], ["z"], name="picks")
    net = [node, helper.make_node("Add", ["z", "x"], ["y"])]
    constants = {"table": TABLE, "i": np.array([0, 4], np.int64)}
    with pytest.raises(FormatError, match=r"'picks' \(Gather\): index 4"):
        InferenceSession(model(net, {"x": (TensorProto.FLOAT, [2, 3])}, constants))
    fed = [helper.make_node("Gather", ["x", "i"], ["y"], name="picks")]
    with pytest.raises(FormatError, match=r"'picks' \(Gather\): index 4"):
        InferenceSession(model(fed, {"x": (TensorProto.FLOAT, [4, 3])}, {"i": constants["i"]}))


def test_other_threads_do_not_see_a_wrong_index() -> None:
    session = InferenceSession(words(), threads=1)
    wrong: list[str] = []

    def go(i: np.ndarray, bad: bool) -> None:
        for _ in range(300):
            try:
                got = session.run(None, {"i": i})[0]
                if bad or not np.array_equal(got, TABLE[i]):
                    wrong.append("an answer that is none")
            except UsageError:
                if not bad:
                    wrong.append("another's fault")

    runs = [threading.Thread(target=go, args=(np.full((1, 2), 9 if k % 2 else k), k % 2 == 1)) for k in range(4)]
    for t in runs:
        t.start()
    for t in runs:
        t.join()
    assert wrong == []


def image(
    op: str, constants: dict[str, np.ndarray] | None = None, shape: tuple[int, ...] = (1, 1, 8, 8), **attrs: Any
) -> bytes:
    names = list(constants or {})
    node = helper.make_node(op, ["x", *names], ["y"], name="big", **attrs)
    return model([node], {"x": (TensorProto.FLOAT, list(shape))}, constants or {})


F3 = np.ones((1, 1, 3, 3), np.float32)
GIANT = {
    "pads of millions": image("Pad", {"p": np.array([0, 0, 0, 7_600_000, 0, 0, 7_600_000, 7_600_000], np.int64)}),
    "pads of a convolution": image("Conv", {"w": F3}, pads=[20_000_000] * 4),
    "pads of a pool": image("MaxPool", kernel_shape=[3, 3], pads=[7_600_000, 7_600_000, 0, 0]),
    "a window of millions": image("AveragePool", kernel_shape=[40_000, 40_000], pads=[39_999, 39_999] * 2),
    "strides of a million": image("ConvTranspose", {"w": F3}, strides=[1_000_000, 1_000_000]),
    "an output padding of millions": image(
        "ConvTranspose", {"w": F3}, output_padding=[7_600_000, 7_600_000], strides=[2, 2]
    ),
    "a tile": image("Tile", {"r": np.array([1, 1, 2**20, 2**16], np.int64)}),
    "an expand": image("Expand", {"s": np.array([2**20, 2**16, 8, 8], np.int64)}),
    "a resize": image("Resize", {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 1e6, 1e6], np.float32)}),
    "a product": image("MatMul", {"w": np.ones((8, 2), np.float32)}, shape=(2**20, 2**15, 1, 8)),
    "an einsum": image("Einsum", equation="abcd->ba", shape=(2**19, 2**19, 1, 1)),
}


@pytest.mark.parametrize("what", GIANT)
def test_files_that_ask_for_giant_work(what: str) -> None:
    began = time.monotonic()
    with pytest.raises((UsageError, FormatError)) as error:
        InferenceSession(GIANT[what], fallback="onnxruntime")
    assert (
        "max_nbytes" in str(error.value)
        or "max_work" in str(error.value)
        or "range" in str(error.value)
        or "big" in str(error.value)
    )
    assert time.monotonic() - began < 20


def chain(steps: int, shape: list[Any]) -> bytes:
    nodes = [helper.make_node("Exp", [f"v{k}" if k else "x"], [f"v{k + 1}"], name=f"e{k}") for k in range(steps)]
    return model(nodes, {"x": (TensorProto.FLOAT, shape)}, {})


def test_the_limit_of_memory() -> None:
    net = chain(3, ["n", 1000])
    session = InferenceSession(net, max_nbytes=1e6)
    assert session.run(None, {"x": np.zeros((100, 1000), np.float32)})[0].shape == (100, 1000)
    words = (
        r"activations of \S+ bytes are planned .* the limit is 1e\+06; .* InferenceSession\(\.\.\., max_nbytes=\.\.\.\)"
    )
    with pytest.raises(UsageError, match=words):
        session.run(None, {"x": np.zeros((200, 1000), np.float32)})
    with pytest.raises(UsageError, match="max_nbytes"):
        InferenceSession(chain(3, [200, 1000]), max_nbytes=1e6)
    assert InferenceSession(chain(3, [200, 1000]), max_nbytes=1e7).run(None, {"x": np.zeros((200, 1000), np.float32)})


def test_the_limit_of_work() -> None:
    net = chain(10, ["n", 1000])
    session = InferenceSession(net, max_work=1e6)
    assert session.run(None, {"x": np.zeros((100, 1000), np.float32)})
    with pytest.raises(
        UsageError,
        match=r"'e4' \(Exp\): 1e\+06 operations are planned|'e\d' \(Exp\): .* operations are planned up to here",
    ):
        session.run(None, {"x": np.zeros((300, 1000), np.float32)})


def test_the_limit_of_what_is_computed_while_loading() -> None:
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["a"]),
        helper.make_node("MatMul", ["a", "a"], ["b"], name="product"),
        helper.make_node("Add", ["x", "b"], ["y"]),
    ]
    constants = {"one": np.ones((1, 1), np.float32), "shape": np.array([5000, 5000], np.int64)}
    net = model(nodes, {"x": (TensorProto.FLOAT, [1])}, constants)
    with pytest.raises(
        UsageError, match=r"'product' \(MatMul\): 1.25e\+11 operations are planned for constants.*max_work="
    ):
        InferenceSession(net)


@pytest.mark.parametrize("limits", [{"max_nbytes": 0}, {"max_work": -1}, {"max_work": float("nan")}])
def test_limits_that_are_none(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be a positive number, or None"):
        InferenceSession(chain(1, [1]), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", ["Conv", "MatMul", "Gemm"])
def test_a_scalar_weight_behind_another_layer(layer: str) -> None:
    first = helper.make_node("Conv", ["x", "w"], ["a"])
    nodes = [first, helper.make_node("Relu", ["a"], ["r"]), helper.make_node(layer, ["r", "s"], ["y"], name="last")]
    constants = {"w": np.zeros((4, 2, 3, 3), np.float32), "s": np.float32(1)}
    with pytest.raises(FormatError, match="'last'"):
        InferenceSession(model(nodes, {"x": (TensorProto.FLOAT, [1, 2, 5, 5])}, constants))


def test_ranks_that_no_kernel_walks() -> None:
    slice_ = helper.make_node("Slice", ["x", "a", "b"], ["y"], name="cut")
    one = np.array([1], np.int64)
    for rank in (9, 40):
        with pytest.raises(UnsupportedError, match=f"rank {rank}"):
            InferenceSession(
                model([slice_], {"x": (TensorProto.FLOAT, [2] * rank)}, {"a": one, "b": one}), fallback=None
            )
    add = helper.make_node("Add", ["x", "w"], ["y"], name="sum")
    net = model([add], {"x": (TensorProto.FLOAT, [1])}, {"w": np.ones([1] * 12, np.float32)})
    with pytest.raises(UnsupportedError, match="rank 12"):
        InferenceSession(net, fallback=None)


def test_sizes_beside_an_empty_axis() -> None:
    net = model([helper.make_node("Transpose", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [0, 2**40, 2**40])}, {})
    with pytest.raises(FormatError, match="too large"):
        InferenceSession(net)


def test_a_bool_is_any_byte() -> None:
    nodes = [helper.make_node("Where", ["c", "a", "b"], ["w"]), helper.make_node("Cast", ["c"], ["f"], to=1)]
    nodes.append(helper.make_node("Add", ["w", "f"], ["y"]))
    constants = {"a": np.float32([10]), "b": np.float32([20])}
    session = InferenceSession(model(nodes, {"c": (TensorProto.BOOL, ["n"])}, constants))
    odd = np.array([0, 1, 2, 156], np.uint8).view(bool)
    assert session.run(None, {"c": odd})[0].tolist() == [20, 11, 11, 11]
