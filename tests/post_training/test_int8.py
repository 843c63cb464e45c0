"""Int8 from a file and examples: integers end to end, as ONNX Runtime and OpenVINO have them, near float32."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import secateur
from post_training import nets
from secateur import zoo
from secateur.engine import InferenceSession, inspect, peers
from secateur.engine.oracle import oracle
from secateur.errors import ConstraintError, FormatError, UnsupportedError, UsageError
from secateur.post_training.reading import read, simplified
from secateur.post_training.writing import weight_scales

NETS: dict[str, tuple[Any, tuple[int, ...], int]] = {  # maker, shape of an example, layers
    "lenet5": (zoo.lenet5, (1, 28, 28), 4),
    "residual": (nets.Residual, (3, 12, 12), 4),
    "joined": (nets.Joined, (3, 12, 12), 5),
    "depthwise": (nets.Depthwise, (3, 10, 10), 5),
    "over_time": (nets.OverTime, (4, 20), 3),
    "rows": (nets.Rows, (5, 16), 4),
}
WAYS = [(name, None) for name in NETS] + [(name, 11) for name in ("residual", "joined", "rows")]
MOVED = {"Concat", "concat"}  # no arithmetic: the engine moves these values as floats


@functools.cache
def made(name: str, opset: int | None = None, n: int | None = None) -> tuple[bytes, Any]:
    torch.manual_seed(0)
    make, shape, _ = NETS[name]
    return nets.exported(nets.ready(make(), shape), shape, opset, n), nets.examples(shape)


@pytest.fixture(scope="module", params=WAYS, ids=str)
def quantized(request: pytest.FixtureRequest) -> Any:
    name, opset = request.param
    model, x = made(name, opset)
    return name, model, x, secateur.quantize(model, x, threads=1)


def test_every_layer_and_all_between_runs_in_integers(quantized: Any) -> None:
    name, _, _, found = quantized
    assert [r["arithmetic"] for r in found.report["layers"]] == ["int8"] * NETS[name][2]
    rows = [r for r in inspect(found.model)["layers"] if r["kernel"] not in ("", "fused")]
    assert sum(r["arithmetic"] == "int8" for r in rows) == NETS[name][2]
    between = [r["kernel"] for r in rows if "_f32" in r["kernel"] and r["op"] not in MOVED]
    assert all("quads" in k or "quantize" in k for k in between), between


def test_outputs_are_near_and_those_of_onnx_runtime(quantized: Any) -> None:
    _, model, x, found = quantized
    (out,) = found.report["outputs"].values()
    assert out["relative_l2"] < 0.03
    assert out["argmax_agree"] >= 0.95 * out["argmax_of"] == 0.95 * len(x)
    feeds = {InferenceSession(model).get_inputs()[0].name: x}
    wanted, ours = InferenceSession(model).run(None, feeds)[0], InferenceSession(found.model).run(None, feeds)[0]
    assert np.linalg.norm(ours - wanted) / np.linalg.norm(wanted) == pytest.approx(out["relative_l2"], rel=1e-3)
    assert np.abs(ours - wanted).max() == pytest.approx(out["max_abs"], rel=1e-3)
    judge = oracle(found.model)
    assert judge is not None
    theirs = judge.call(feeds)[0]
    # A value between two codes may go either way: most examples agree to float32's rounding, none is far off.
    assert np.linalg.norm(ours - theirs) <= 0.005 * np.linalg.norm(theirs)
    assert np.isclose(ours, theirs, atol=1e-4 * np.abs(theirs).max()).all(axis=1).mean() > 0.6


def test_the_file_is_what_other_runtimes_take(quantized: Any) -> None:
    _, model, x, found = quantized
    net = onnx.load_model_from_string(found.model)
    onnx.checker.check_model(net, full_check=True)
    names = {i.name for i in onnx.load_model_from_string(model).graph.input}
    assert {i.name for i in net.graph.input} == names
    values = {t.name: numpy_helper.to_array(t) for t in net.graph.initializer}
    for n in net.graph.node:
        if n.op_type in ("QuantizeLinear", "DequantizeLinear") and len(n.input) > 2:
            assert values[n.input[2]] == 0
            assert values[n.input[1]].shape == ()
        elif n.op_type == "DequantizeLinear":
            assert values[n.input[0]].dtype in (np.int8, np.int32)
    assert "BatchNormalization" not in {n.op_type for n in net.graph.node}
    (name,) = names
    theirs = peers.openvino(found.model, 1, {name: x.shape})[0]({name: x})[0]
    ours = InferenceSession(found.model).run(None, {name: x})[0]
    assert np.linalg.norm(ours - theirs) <= 0.05 * np.linalg.norm(theirs)


def test_grids_follow_the_rules_of_recipes() -> None:
    model, x = made("residual")
    rows = secateur.quantize(model, x).report["activations"]
    low = {v: r["low"] for r in rows for v in r["values"]}
    assert low["x"] == -128
    assert [low[v] for v in ("relu", "relu_1", "relu_2", "mean")] == [0, 0, 0, 0]
    signed = [v for v, end in low.items() if end == -128]
    assert len(signed) == 2  # the input, and the branch that is added before the last Relu
    model, x = made("joined")
    rows = secateur.quantize(model, x).report["activations"]
    shared = next(r["values"] for r in rows if "cat" in r["values"])
    assert {"relu", "relu_1", "cat", "max_pool2d"} <= set(shared)


def test_digits_keep_their_accuracy() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    torch.manual_seed(0)
    net = zoo.digits_cnn()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for at in [*range(0, 1280, 64)] * 3:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(x[at : at + 64])), torch.tensor(labels[at : at + 64])).backward()
        optimizer.step()
    model = nets.exported(net.eval(), (1, 8, 8))
    for observer in ("minmax", "mse", "entropy"):
        found = secateur.quantize(model, x[:256], observer=observer)
        right = [
            (InferenceSession(m).run(None, {"input": x[1400:]})[0].argmax(1) == labels[1400:]).mean()
            for m in (model, found.model)
        ]
        assert right[0] > 0.8
        assert right[1] >= right[0] - 0.01


def test_kept_layers_stay_float() -> None:
    model, x = made("lenet5")
    found = secateur.quantize(model, x, keep=["fc1", "conv1.*"])
    assert [r["arithmetic"] for r in found.report["layers"]] == ["float32", "int8", "float32", "int8"]
    assert found.report["layers"][0]["why"] == "kept float, as asked"
    kernels = [r["arithmetic"] for r in inspect(found.model)["layers"] if r["arithmetic"]]
    assert kernels == ["float32", "int8", "float32", "int8"]
    with pytest.raises(UsageError, match=r"keep: pattern 'fc3' matches no layer of model; did you mean 'fc[12]'"):
        secateur.quantize(model, x, keep="fc3")
    with pytest.raises(UsageError, match=r"no layer to quantize: .*kept float, as asked"):
        secateur.quantize(model, x, keep="*")


def test_one_example_at_a_time() -> None:
    one, x = made("residual", n=1)
    free, _ = made("residual")
    assert InferenceSession(one).get_inputs()[0].shape[0] == 1
    scales = [[r["scale"] for r in secateur.quantize(m, x).report["activations"]] for m in (one, free)]
    assert np.allclose(scales[0], scales[1], rtol=1e-5)
    four, x = made("residual", n=4)
    assert secateur.quantize(four, x[:11]).report["n_examples"] == 8


def test_what_the_engine_refuses_stays_float() -> None:
    """Sums of so many products may leave int32."""
    w = np.ones((70000, 4), np.float32)
    model = nets.dense([("MatMul", w), ("MatMul", np.eye(4, dtype=np.float32))])
    found = secateur.quantize(model, np.random.default_rng(0).random((4, 70000), np.float32))
    assert [r["arithmetic"] for r in found.report["layers"]] == ["float32", "int8"]
    assert "int32" in found.report["layers"][0]["why"]


def test_scales_of_weights_hold_the_biases() -> None:
    w = np.array([[1.27, -0.5], [0.0, 0.0], [1e-12, 0.0], [0.0, 0.0]], np.float32)
    b, x = np.array([0.1, 0.3, 5.0, 0.0], np.float32), np.float32(0.02)
    scale = weight_scales(w, 0, b, x)
    assert scale[0] == pytest.approx(0.01)
    steps = np.rint(b.astype(np.float64) / (x * scale))
    assert np.abs(steps).max() <= 2**29
    assert np.abs(steps * (x * scale) - b).max() < 1e-6
    assert scale[3] == 1


def test_a_norm_behind_a_linear_layer_is_folded() -> None:
    model, x = made("rows", 11)
    before = simplified(read(model)[1], "model")
    assert "BatchNormalization" not in {n.op_type for n in before.nodes}
    assert {n.op_type for n in before.nodes if n.op_type in ("MatMul", "Gemm")} == {"MatMul", "Gemm"}
    assert before.opset == 13
    assert x.shape[1:] == (5, 16)


def test_names_are_the_files() -> None:
    model, x = made("residual", 11)
    names = [r["name"] for r in secateur.quantize(model, x).report["layers"]]
    assert names == [
        "/stem/stem.0/Conv",
        "/branch/branch.0/branch.0.0/Conv",
        "/branch/branch.2/branch.2.0/Conv",
        "/fc/Gemm",
    ]


BAD_MODELS = [
    (nets.dense([("MatMul", np.ones((3, 2), np.float32))], more=[
        helper.make_node("DynamicQuantizeLinear", ["v0"], ["q", "s", "z"]),
        helper.make_node("Identity", ["s"], ["y"]),
    ]), UsageError, "computes in integers already"),
    (b"not a model at all", FormatError, "is no ONNX model"),
    (nets.dense([("MatMul", np.ones((3, 2), np.float32))], more=[
        helper.make_node("Gelu", ["v0"], ["y"], domain="com.microsoft", name="act")
    ]), UnsupportedError, "node 'act' .Gelu. is of the domain 'com.microsoft'"),
    (nets.dense([("Add", np.ones((3,), np.float32))]), UsageError, "no Conv, Gemm or MatMul with constant weights"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "error", "said"), BAD_MODELS)
def test_models_that_do_not_fit_are_named(model: bytes, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        secateur.quantize(model, np.random.default_rng(0).random((4, 3), np.float32))


def test_infinity_inside_is_named() -> None:
    model = nets.dense(
        [("MatMul", np.full((3, 2), 3e38, np.float32)), ("MatMul", np.ones((2, 2), np.float32))],
    )
    with pytest.raises(ConstraintError, match=r"calibration: v0 has .* NaN or infinite"):
        secateur.quantize(model, 10 * np.random.default_rng(0).random((4, 3), np.float32) + 1)


def test_what_onnxs_converter_changes_is_found() -> None:
    """It takes the broadcast of opset 6 for today's; the engine reads both."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["c", "b"], ["y"], axis=1, broadcast=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(rng.standard_normal((2, 3, 1, 1)).astype(np.float32), "w"),
            numpy_helper.from_array(np.float32([1, 2]), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3).SerializeToString()
    with pytest.raises(UnsupportedError, match=r"output 'y' became \[2, 2, 4, 4\] where \[1, 2, 4, 4\] is needed"):
        secateur.quantize(model, rng.random((4, 3, 4, 4), np.float32))


def test_what_else_reads_an_input_reads_it_as_it_is() -> None:
    w = np.eye(3, dtype=np.float32)
    more = [
        helper.make_node("Add", ["x", "one"], ["raw"]),
        helper.make_node("Concat", ["v0", "raw"], ["y"], axis=1),
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1))),
    ]
    x = np.random.default_rng(0).random((6, 3), np.float32)
    model = nets.dense([("MatMul", w)], more=[more[2], *more[:2]])
    found = secateur.quantize(model, {"x": x})
    y = InferenceSession(found.model).run(None, {"x": x})[0]
    assert np.array_equal(y[:, 3:], x + 1)
    assert not np.array_equal(y[:, :3], x)
    with pytest.raises(UsageError, match="nothing for the input 'x'; did you mean 'xx'"):
        secateur.quantize(model, {"xx": x})


def test_a_sum_of_an_input_behind_a_relu_is_one_of_integers() -> None:
    w = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    more = [
        helper.make_node("Add", ["v0", "x"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["r"]),
        helper.make_node("MatMul", ["r", "w0"], ["y"]),
    ]
    found = secateur.quantize(
        nets.dense([("MatMul", w)], more=more), np.random.default_rng(0).random((6, 3), np.float32)
    )
    kernels = {r["name"]: r["kernel"] for r in inspect(found.model)["layers"]}
    assert "f32" not in kernels["sum"], kernels


def test_outputs_without_a_shape() -> None:
    model = nets.dense([("MatMul", np.ones((3, 2), np.float32))])
    net = onnx.load_model_from_string(model)
    assert not net.graph.output[0].type.tensor_type.HasField("shape")
    found = secateur.quantize(model, np.random.default_rng(0).random((4, 3), np.float32))
    assert len(onnx.load_model_from_string(found.model).graph.output[0].type.tensor_type.shape.dim) == 2


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    model, x = made("lenet5")
    onnx.save(onnx.load_model_from_string(model), tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    found = secateur.quantize(tmp_path / "m.onnx", x)
    assert found.model == secateur.quantize(model, x).model
    with pytest.raises(UsageError, match="lie in another file; give the path"):
        secateur.quantize((tmp_path / "m.onnx").read_bytes(), x)
