"""Law 1 seen from outside: what `unpack(pack(x))` gives, ONNX Runtime loads, and it computes the same outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secateur import formats
from secateur.engine import InferenceSession
from secateur.shell import runtimes

onnx = pytest.importorskip("onnx")
pytest.importorskip("secateur.native._native")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Run = Callable[[bytes, dict[str, np.ndarray]], list[np.ndarray]]
EXPORTERS = sorted(Path(__file__).parents[1].joinpath("parity/exporters").glob("*.onnx"))


def run(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = runtimes.onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def feeds_of(model: bytes, batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    graph = onnx.load_from_string(model).graph
    constants = {t.name for t in graph.initializer}
    feeds = {}
    for i in graph.input:
        if i.name not in constants:
            shape = [d.dim_value or batch for d in i.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
            feeds[i.name] = (3 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def in_engine(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return InferenceSession(model, threads=1, fallback=None).run(None, feeds)


def same(model: bytes, feeds: dict[str, np.ndarray] | None = None, call: Run | None = None) -> bytes:
    """The unpacked file after ONNX Runtime (or `call`) has run both on the same feeds, to the same bits."""
    call = call or run
    feeds = feeds_of(model) if feeds is None else feeds
    packed = formats.pack(model)
    back = formats.unpack(packed)
    for want, got in zip(call(model, feeds), call(back, feeds), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)
    names = [n.name for n in onnx.load_from_string(back).graph.node]
    assert len(names) == len(set(names)), "two nodes have one name"
    assert formats.pack(back) == packed
    return back


@pytest.mark.parametrize("file", EXPORTERS, ids=lambda f: f.stem)
def test_files_of_exporters(file: Path) -> None:
    """Files of opsets that ONNX Runtime does not read are compared in the engine."""
    model = file.read_bytes()
    old = onnx.load_from_string(model).opset_import[0].version < 7
    same(model, call=in_engine if old else run)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_exports(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from secateur.export import onnx as export

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r = getattr(torch.nn, kind)(8, 12, num_layers=2, batch_first=True, bidirectional=True)
            self.fc = torch.nn.Linear(24, 3)

        def forward(self, x):
            return self.fc(self.r(x)[0][:, -1])

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(export.to_bytes(Net().eval(), torch.randn(2, 5, 8)))


@pytest.mark.parametrize("name", ["lenet5", "digits_cnn", "resnet20"])
def test_nets_of_the_zoo(name: str) -> None:
    torch = pytest.importorskip("torch")
    from secateur import zoo
    from secateur.export import onnx as export

    net = getattr(zoo, name)().eval()
    shape = {"lenet5": (1, 1, 28, 28), "digits_cnn": (1, 1, 8, 8), "resnet20": (1, 3, 32, 32)}[name]
    same(export.to_bytes(net, torch.randn(*shape)))


def model_of(nodes, constants, inputs, outputs, opset=17) -> bytes:
    info = lambda n, s, t=TensorProto.FLOAT: helper.make_tensor_value_info(n, t, s)  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "g",
        [info(*i) for i in inputs],
        [info(*o) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def shared_constants(seed: int) -> bytes:
    """Float nets over [n, 4] whose nodes share constants with names made to collide with invented ones."""
    g = np.random.default_rng(seed)
    menu = [
        "w",
        "w.weight",
        "w.bias",
        "t0",
        "t1",
        "t2_1",
        "Add_1",
        "Add_2.b",
        ".hidden",
        "a.b.c",
        "w_1",
        "w_2.x",
        "Relu_0",
    ]
    names = [str(n) for n in g.permutation(menu)]
    matrices = {n: g.normal(size=(4, 4)).astype(np.float32) / 2 for n in names[:4]}
    rows = {n: g.normal(size=4).astype(np.float32) for n in names[4:8]}
    constants = (
        matrices | rows | {"axes": np.int64([1]), "halves": np.int64([2, 2]), "none": np.zeros((0, 4), np.float32)}
    )
    inputs = ["x", names[8]]
    values, nodes = list(inputs), []

    def node(op: str, reads: list[str], writes: int = 1, **attributes: object) -> list[str]:
        out = [f"v{len(nodes)}_{j}" for j in range(writes)]
        nodes.append(helper.make_node(op, reads, out, name=f"n{len(nodes)}", **attributes))
        return out

    for _ in range(int(g.integers(3, 15))):
        x, y = (str(v) for v in g.choice(values, 2))
        row, matrix = str(g.choice(list(rows))), str(g.choice(list(matrices)))
        kind = int(g.integers(8))
        if kind == 0:
            values += node("Add", [row, x] if g.random() < 0.5 else [x, row])
        elif kind == 1:
            values += node("MatMul", [x, matrix])
        elif kind == 2:
            values += node("Gemm", [x, matrix, row], transB=int(g.integers(2)))
        elif kind == 3:
            a, b = node("Split", [x, "halves"], 2, axis=1)
            values += node("Concat", [b, a], axis=1)
        elif kind == 4:
            low = node("ReduceMin", [row], axes=[0], keepdims=0)[0]
            values += node("Clip", [x, "", low] if g.random() < 0.5 else [x, low])
        elif kind == 5:
            values += node("Concat", [x, "none"], axis=0)
        elif kind == 6:
            values += node("Dropout", [x], 2)[:1] if g.random() < 0.5 else node("Relu", [x])
        else:
            values += node("Mul", [x, y])
    chosen = list(dict.fromkeys(str(v) for v in [*g.choice(values, 3), values[-1], names[4], values[-1]]))
    shapes = {names[4]: [4]}
    outputs = [(v, shapes.get(v, ["n", 4])) for v in chosen]
    return model_of(nodes, constants, [(i, ["n", 4]) for i in inputs], outputs)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_that_share_constants(seed: int) -> None:
    same(shared_constants(seed))


ONE = np.float32([[1, 2, 3, 4]])
X, Y = ("x", ["n", 4]), ("y", ["n", 4])
CORNERS = {
    "two nodes read one constant": (
        [helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Mul", ["a", "c"], ["y"])],
        {"c": ONE}, [X], [Y],
    ),
    "a constant is called like the node after": (
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "Relu_0.w"], ["y"])],
        {"Relu_0.w": ONE}, [X], [Y],
    ),
    "a made name is taken by a later node": (
        [
            helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Add", ["a", "c"], ["b"]),
            helper.make_node("Add", ["b", "c_1"], ["d"]), helper.make_node("Add", ["d", "c_1_2"], ["y"]),
        ],
        {"c": ONE, "c_1": ONE * 2, "c_1_2": ONE * 3}, [X], [Y],
    ),
    "an input is called like an inner value": (
        [helper.make_node("Add", ["t0", "t1"], ["a"]), helper.make_node("Mul", ["a", "a"], ["y"])],
        {"t1": ONE}, [("t0", ["n", 4])], [Y],
    ),
    "an output is also read": (
        [helper.make_node("Add", ["x", "c"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
        {"c": -ONE}, [X], [Y, ("z", ["n", 4])],
    ),
    "an output is an initializer": (
        [helper.make_node("Add", ["x", "c"], ["y"])], {"c": ONE}, [X], [Y, ("c", [1, 4])],
    ),
    "an output is an initializer nobody reads": (
        [helper.make_node("Relu", ["x"], ["y"])], {"c": ONE}, [X], [("c", [1, 4]), Y],
    ),
    "an output is an input": (
        [helper.make_node("Relu", ["x"], ["y"])], {}, [X], [X, Y],
    ),
    "a middle output is left out": (
        [
            helper.make_node("Reshape", ["x", "steps"], ["s"]),
            helper.make_node("GRU", ["s", "w", "r"], ["", "h"], hidden_size=4),
            helper.make_node("Reshape", ["h", "rows"], ["y"]),
        ],
        {
            "steps": np.int64([-1, 1, 4]), "rows": np.int64([-1, 4]),
            "w": np.ones((1, 12, 4), np.float32), "r": np.ones((1, 12, 4), np.float32),
        },
        [X], [Y],
    ),
    "a middle input is left out": (
        [helper.make_node("Clip", ["x", "", "most"], ["y"])], {"most": np.float32(1)}, [X], [Y],
    ),
    "an empty tensor": (
        [helper.make_node("Concat", ["x", "none"], ["y"], axis=0)], {"none": np.zeros((0, 4), np.float32)}, [X], [Y],
    ),
    "Constant nodes": (
        [
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(ONE)),
            helper.make_node("Constant", [], ["l"], value_floats=[1.0, 2.0, 3.0, 4.0]),
            helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Add", ["a", "l"], ["y"]),
        ],
        {}, [X], [Y],
    ),
    "names beyond ASCII": (
        [helper.make_node("Add", ["x", "schicht.größe"], ["a"]), helper.make_node("Mul", ["a", "schicht.höhe"], ["y"])],
        {"schicht.größe": ONE, "schicht.höhe": ONE}, [X], [Y],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str) -> None:
    same(model_of(*CORNERS[name]))


def test_initializers_listed_as_inputs_of_ir_version_3() -> None:
    proto = onnx.load_from_string(model_of(*CORNERS["two nodes read one constant"], opset=9))
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 4]))
    same(proto.SerializeToString())
