"""Old forms one by one: what they mean by their text, or by ONNX Runtime where it still has them."""

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.engine.inspect import inspect
from secateur.errors import FormatError, UnsupportedError
from secateur.formats import pack, unpack
from secateur.native import _native

from .test_engine_random import run_ort

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    opset: int,
    feeds: dict[str, Array],
    constants: dict[str, Array] | None = None,
    *,
    shapes: bool = True,
    outputs: tuple[str, ...] = ("y",),
    ir_version: int = 4,
    typed: bool = False,
) -> bytes:
    """`shapes` False: the inputs do not say theirs."""
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape if shapes else None)
        for n, a in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        infos,
        [
            helper.make_tensor_value_info(o, TensorProto.FLOAT, None)
            if typed
            else helper.make_empty_tensor_value_info(o)
            for o in outputs
        ],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(made.SerializeToString())


def run(data: bytes, feeds: dict[str, Array]) -> list[Array]:
    return InferenceSession(data, threads=1, fallback=None).run(None, feeds)


def node(op: str, inputs: list[str], outputs: tuple[str, ...] = ("y",), **attributes: Any) -> onnx.NodeProto:
    name = f"the {op}" if outputs[0] == "y" else f"{op} of {outputs[0]}"
    return helper.make_node(op, inputs, list(outputs), name=name, **attributes)


ARITHMETIC = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Greater": np.greater,
    "Less": np.less,
}
LOGIC = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("op", [*ARITHMETIC, *LOGIC, "Pow", "Equal"])
def test_broadcast_along_an_axis(op: str, opset: int) -> None:
    """B stands at `axis` of A (opsets 1 to 6), whether ranks are known when the file is read or not."""
    function = {**ARITHMETIC, **LOGIC, "Pow": np.power, "Equal": np.equal}[op]
    a, bs = f32(2, 3, 4, 5), [f32(3), f32(3, 4), f32(5), f32(4, 5), f32(1)]
    if op in LOGIC:
        a, bs = a > 0, [b > 0 for b in bs]
    elif op == "Equal":
        a, bs = (a > 0).astype(np.int64), [(b > 0).astype(np.int64) for b in bs]
    elif op == "Pow":
        a = np.abs(a)
    for b, axis in zip(bs, (1, 1, 3, None, 0), strict=True):
        lined_up = b.reshape(b.shape + (1,) * (4 - (axis or 0) - b.ndim)) if axis is not None and b.size > 1 else b
        want = function(a, lined_up)
        for placed in {axis, None if axis is None else axis - 4}:
            said = {} if placed is None else {"axis": placed}
            nodes = [node(op, ["a", "b"], broadcast=1, **said)]
            for constant in (False, True):
                feeds, constants = ({"a": a}, {"b": b}) if constant else ({"a": a, "b": b}, {})
                for shapes in (True, False):
                    (got,) = run(model(nodes, opset, feeds, constants, shapes=shapes), feeds)
                    assert got.shape == want.shape
                    assert np.allclose(got, want, rtol=1e-5), (op, b.shape, placed, constant, shapes)


def test_a_bias_along_an_axis_is_fused() -> None:
    """Conv without bias and Add along axis 1, as the first exporters wrote it, is a convolution with a bias."""
    x, w, b = f32(1, 3, 8, 8), f32(4, 3, 3, 3), f32(4)
    nodes = [node("Conv", ["x", "w"], ("c",)), node("Add", ["c", "b"], axis=1, broadcast=1)]
    data = model(nodes, 6, {"x": x}, {"w": w, "b": b})
    session = InferenceSession(data, threads=1, fallback=None)
    (row,) = session.explain(repeats=0)
    assert row["kernel"].startswith("conv_")
    new = model([node("Conv", ["x", "w", "b"])], 13, {"x": x}, {"w": w, "b": b})
    np.testing.assert_allclose(session.run(None, {"x": x})[0], run_ort(new, {"x": x})[0], atol=1e-4)


@pytest.mark.parametrize("opset", [1, 6])
def test_prelu_slopes_of_channels(opset: int) -> None:
    for x in (f32(2, 3), f32(2, 3, 4), f32(2, 3, 4, 5)):
        for slope in (f32(3), f32(1)):
            along = slope.reshape((-1,) + (1,) * (x.ndim - 2))
            want = np.where(x < 0, x * along, x)
            for shapes in (True, False):
                data = model([node("PRelu", ["x", "s"])], opset, {"x": x}, {"s": slope}, shapes=shapes)
                np.testing.assert_array_equal(run(data, {"x": x})[0], want)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    "scales", [(1, 1, 2, 3), (1, 1, 1.5, 2.6), (1, 1, 1, 1), (1, 1, 0.6, 0.6), (1, 1, 2, 0.6), (1, 1, 0.3, 2)]
)
def test_upsample_and_resize(scales: tuple[float, ...], mode: str) -> None:
    x, s = f32(2, 3, 5, 7), np.asarray(scales, np.float32)
    feeds = {"x": x}
    resize = model([node("Resize", ["x", "s"], mode=mode)], 10, feeds, {"s": s})
    (want,) = run_ort(resize, feeds)
    forms = [resize]
    if min(scales) >= 1:  # Upsample only makes larger
        forms.append(model([node("Upsample", ["x", "s"], mode=mode)], 9, feeds, {"s": s}))
        forms.append(model([node("Upsample", ["x"], mode=mode, scales=s.tolist())], 7, feeds))
        for data in forms[1:]:
            np.testing.assert_allclose(run_ort(data, feeds)[0], want, atol=1e-6)
        first = {
            "mode": "bilinear" if mode == "linear" else mode,
            "height_scale": float(scales[2]),
            "width_scale": float(scales[3]),
        }
        forms.append(model([node("Upsample", ["x"], **first)], 1, feeds))
    for data in forms:
        (got,) = run(data, feeds)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_scales_computed_while_running() -> None:
    """Upsample of opset 9 whose scales come from shapes, as PyTorch 1.0 wrote them."""
    x, target = f32(1, 2, 4, 6), f32(1, 2, 8, 12)
    nodes = [
        node("Shape", ["t"], ("ts",)), node("Cast", ["ts"], ("tf",), to=TensorProto.FLOAT),
        node("Shape", ["x"], ("xs",)), node("Cast", ["xs"], ("xf",), to=TensorProto.FLOAT),
        node("Div", ["tf", "xf"], ("s",)),
        node("Upsample", ["x", "s"], mode="nearest"),
    ]  # fmt: skip
    feeds = {"x": x, "t": target}
    (got,) = run(model(nodes, 9, feeds), feeds)
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(2, 3))


def test_upsample_is_gone_from_opset_10_on() -> None:
    x = f32(1, 1, 2, 2)
    data = model([node("Upsample", ["x", "s"])], 11, {"x": x}, {"s": np.ones(4, np.float32)})
    with pytest.raises(UnsupportedError, match=r"'the Upsample'.*Resize instead"):
        run(data, {"x": x})


def batch_norm(channels: tuple[int, ...]) -> dict[str, Array]:
    return {
        "s": f32(*channels),
        "b": f32(*channels),
        "m": f32(*channels),
        "v": np.abs(f32(*channels)) + np.float32(0.1),
    }


@pytest.mark.parametrize("opset", [6, 7, 8])
@pytest.mark.parametrize(("shape", "of"), [((2, 3), (3,)), ((2, 3, 4), (3, 4)), ((2, 3, 4, 5), (3, 4, 5))])
def test_batch_norm_of_each_activation(shape: tuple[int, ...], of: tuple[int, ...], opset: int) -> None:
    x, p = f32(*shape), batch_norm(of)
    mode = {"is_test": 1} if opset < 7 else {}
    data = model([node("BatchNormalization", ["x", *p], spatial=0, epsilon=1e-3, **mode)], opset, {"x": x}, p)
    want = (x - p["m"]) / np.sqrt(p["v"] + np.float32(1e-3)) * p["s"] + p["b"]
    if opset >= 7 and len(of) > 1:
        np.testing.assert_allclose(run_ort(data, {"x": x})[0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(data, {"x": x})[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["BatchNormalization", "Dropout"])
@pytest.mark.parametrize("opset", [1, 6])
def test_training_is_refused_and_named(opset: int, op: str) -> None:
    """is_test 0, the default before opset 7."""
    x, p = f32(2, 3, 4), batch_norm((3,))
    inputs = ["x", *p] if op == "BatchNormalization" else ["x"]
    for said in ({}, {"is_test": 0}):
        data = model([node(op, inputs, **said)], opset, {"x": x}, p)
        with pytest.raises(UnsupportedError, match=f"'the {op}'.*training") as caught:
            run(data, {"x": x})
        assert caught.value.node == f"the {op}"


def test_no_pass_takes_a_refused_node_for_the_new_one_of_its_name() -> None:
    """A norm or Dropout in training behind a convolution is not folded into it; `inspect` shows both."""
    x, p = f32(1, 3, 6, 6), batch_norm((3,))
    for op, inputs in (("BatchNormalization", ["c", *p]), ("Dropout", ["c"])):
        nodes = [node("Conv", ["x", "w"], ("c",)), node(op, inputs, ("n",)), node("Relu", ["n"])]
        data = model(nodes, 6, {"x": x}, {"w": f32(3, 3, 3, 3), **p})
        with pytest.raises(UnsupportedError, match=f"{op} of n.*training"):
            run(data, {"x": x})
        shown = [row["op"] for row in inspect(data)["layers"]]
        assert shown[:2] == ["Conv", op]


def test_outputs_that_nobody_reads() -> None:
    """A mask, indices and statistics that are only named; BatchNormalization of opset 7 to 13 trains by naming them."""
    x, p = f32(2, 3, 8, 8), batch_norm((3,))
    five = ("y", "mean", "var", "saved_mean", "saved_var")
    pool = node("MaxPool", ["x"], ("y", "indices"), kernel_shape=[2, 2])
    for opset in (8, 10, 12):
        feeds = {"x": x}
        np.testing.assert_array_equal(
            run(model([pool], opset, feeds), feeds)[0], run_ort(model([pool], opset, feeds), feeds)[0]
        )
        (got,) = run(model([node("Dropout", ["x"], ("y", "mask"))], opset, feeds), feeds)
        np.testing.assert_array_equal(got, x)
        with pytest.raises(UnsupportedError, match="the mask output"):
            run(model([node("Dropout", ["x"], ("y", "mask"))], opset, feeds, outputs=("y", "mask")), feeds)
        with pytest.raises(UnsupportedError, match="evaluation mode"):
            run(model([node("BatchNormalization", ["x", *p], five)], opset, feeds, p), feeds)
    data = model([node("BatchNormalization", ["x", *p], five, is_test=1)], 6, {"x": x}, p)
    want = run_ort(model([node("BatchNormalization", ["x", *p])], 9, {"x": x}, p), {"x": x})
    np.testing.assert_allclose(run(data, {"x": x})[0], want[0], atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.0, None), (None, 0.5), (-0.5, 0.5), (None, None)])
@pytest.mark.parametrize("opset", [1, 6, 10])
def test_clip_of_attributes(low: float | None, high: float | None, opset: int) -> None:
    x = f32(3, 4)
    said = {k: v for k, v in {"min": low, "max": high}.items() if v is not None}
    want = np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)
    np.testing.assert_array_equal(run(model([node("Clip", ["x"], **said)], opset, {"x": x}), {"x": x})[0], want)


def test_defaults_that_changed() -> None:
    x, y = f32(2, 3), f32(2, 3)
    feeds = {"x": x, "y2": y}
    (got,) = run(model([node("Concat", ["x", "y2"])], 1, feeds), feeds)
    np.testing.assert_array_equal(got, np.concatenate([x, y], 1))
    for opset, alpha, gamma in ((1, 1.6732, 1.0507), (6, 1.67326319217681884765625, 1.05070102214813232421875)):
        (got,) = run(model([node("Selu", ["x"])], opset, {"x": x}), {"x": x})
        np.testing.assert_allclose(got, gamma * np.where(x > 0, x, alpha * (np.exp(x) - 1)), rtol=1e-6, atol=1e-6)
    with pytest.raises(UnsupportedError, match="axis is missing"):
        run(model([node("Split", ["x"], ("y", "z"))], 1, {"x": x}), {"x": x})


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [1, 7, 11, 12])
def test_softmax_of_a_matrix(opset: int, op: str) -> None:
    """Before opset 13 all axes from `axis` on (1 by default) are one."""
    x = f32(2, 3, 4)
    for said in ({}, {"axis": 0}, {"axis": 1}, {"axis": 2}):
        data = model([node(op, ["x"], **said)], opset, {"x": x})
        np.testing.assert_allclose(run(data, {"x": x})[0], run_ort(data, {"x": x})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("word", "dtype"),
    [("FLOAT", np.float32), ("DOUBLE", np.float64), ("INT64", np.int64), ("BOOL", np.bool_), ("UINT8", np.uint8)],
)
def test_cast_to_a_word(word: str, dtype: type) -> None:
    x = np.abs(f32(3, 4)) * 9
    (got,) = run(model([node("Cast", ["x"], to=word)], 5, {"x": x}), {"x": x})
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x.astype(dtype))
    with pytest.raises(UnsupportedError, match="cast to 'float'"):
        run(model([node("Cast", ["x"], to="float")], 5, {"x": x}), {"x": x})


def test_sums_and_means() -> None:
    """Sum and Mean of any number of values, of every opset; a residual in Sum is fused like one in Add."""
    values = {f"x{i}": f32(2, 3, 4) for i in range(4)}
    for opset in (1, 6, 8, 13, 23):
        for count in (1, 2, 3, 4):
            feeds = dict(list(values.items())[:count])
            for op, want in (("Sum", sum(feeds.values())), ("Mean", sum(feeds.values()) / np.float32(count))):
                (got,) = run(model([node(op, list(feeds))], opset, feeds, ir_version=8), feeds)
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    x, w = f32(1, 4, 6, 6), f32(4, 4, 3, 3)
    nodes = [node("Conv", ["x", "w"], ("c",), pads=[1, 1, 1, 1]), node("Sum", ["c", "x"])]
    session = InferenceSession(model(nodes, 7, {"x": x}, {"w": w}), threads=1, fallback=None)
    assert "fused 1 residual additions" in session.notes
    assert len(session.explain(repeats=0)) == 1


def test_image_scaler() -> None:
    x, bias = f32(2, 3, 4, 5), [-1.0, 0.5, 2.0]
    for opset in (1, 7, 9):
        for said in ({"scale": 0.5, "bias": bias}, {"bias": bias}):
            data = model([node("ImageScaler", ["x"], **said)], opset, {"x": x})
            np.testing.assert_allclose(run(data, {"x": x})[0], run_ort(data, {"x": x})[0], rtol=1e-6, atol=1e-6)


def test_tiles_along_an_axis() -> None:
    x = f32(2, 3)
    data = model([node("Tile", ["x", "t", "a"])], 1, {"x": x}, {"t": np.float32([3]), "a": np.float32([1])})
    np.testing.assert_array_equal(run(data, {"x": x})[0], np.tile(x, (1, 3)))
    for tiles in (0, 1e9, np.nan):
        data = model([node("Tile", ["x", "t", "a"])], 1, {"x": x}, {"t": np.float32([tiles]), "a": np.float32([1])})
        with pytest.raises(UnsupportedError, match="out of range"):
            run(data, {"x": x})


def test_a_transposed_convolution_that_names_its_whole_shape() -> None:
    x, w = f32(1, 2, 3, 3), f32(2, 2, 3, 3)
    new, old = ([node("ConvTranspose", ["x", "w"], output_shape=s, strides=[3, 2])] for s in ([10, 8], [1, 2, 10, 8]))
    (want,) = run_ort(model(new, 11, {"x": x}, {"w": w}), {"x": x})
    np.testing.assert_allclose(run(model(old, 8, {"x": x}, {"w": w}), {"x": x})[0], want, atol=1e-5)


def test_the_first_files_name_no_opset() -> None:
    """Opset 1 is meant before IR version 3; later a file without is damaged."""
    x = f32(2, 3)
    made = onnx.load_from_string(model([node("Clip", ["x"], min=0.0)], 1, {"x": x}, ir_version=2))
    del made.opset_import[:]
    np.testing.assert_array_equal(run(made.SerializeToString(), {"x": x})[0], np.maximum(x, 0))
    made.ir_version = 3
    with pytest.raises(FormatError, match="no opset version"):
        run(made.SerializeToString(), {"x": x})


@pytest.mark.parametrize(
    ("op", "opset", "said", "why"),
    [
        ("Slice", 9, {"starts": [0]}, "attribute 'ends' is missing"),
        ("Pad", 2, {}, "attribute 'pads' is missing"),
        ("TopK", 1, {}, "attribute 'k' is missing"),
        ("Reshape", 1, {}, "attribute 'shape' is missing"),
        ("Upsample", 1, {"height_scale": 2.0}, "attribute 'width_scale' is missing"),
        ("Upsample", 7, {"scales": [1, 1, 2, 2]}, "attribute 'scales' is not a list of floats"),
        ("Resize", 10, {}, "input 1 is missing"),
        ("Add", 6, {"broadcast": 1, "axis": 100}, "axis 100 does not exist"),
        ("Add", 6, {"broadcast": 1, "axis": 2}, "axis 2 does not exist"),
    ],
)
def test_damaged_old_forms(op: str, opset: int, said: dict[str, Any], why: str) -> None:
    x = f32(2, 3)
    feeds = {"x": x, "b": f32(3)} if op == "Add" else {"x": x}
    with pytest.raises(FormatError, match=why):
        run(model([node(op, list(feeds), **said)], opset, feeds), feeds)


def test_files_do_not_speak_the_words_of_passes() -> None:
    x = f32(1, 1, 4, 5)
    ways = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    data = model(
        [node("Resize", ["x", "", "s"], **ways, _ceil_to_shrink=1)], 13, {"x": x}, {"s": np.float32([1, 1, 0.6, 0.6])}
    )
    np.testing.assert_array_equal(run(data, {"x": x})[0], x[:, :, [0, 1]][..., [0, 1, 3]])


def test_group_norm_per_group() -> None:
    """Opset 18: one scale and bias per group."""
    x, s, b = f32(2, 6, 5), f32(3), f32(3)
    old = model(
        [node("GroupNormalization", ["x", "s", "b"], num_groups=3)], 18, {"x": x}, {"s": s, "b": b}, ir_version=8
    )
    wide = {"s": s.repeat(2), "b": b.repeat(2)}
    new = model([node("GroupNormalization", ["x", "s", "b"], num_groups=3)], 21, {"x": x}, wide, ir_version=8)
    np.testing.assert_allclose(run(old, {"x": x})[0], run_ort(new, {"x": x})[0], atol=1e-5)


def old_net() -> tuple[bytes, dict[str, Array]]:
    """A small network of opset 7: what stands in one node of the file becomes several."""
    x = f32(1, 3, 8, 8)
    p = batch_norm((4,))
    constants = {"w": f32(4, 3, 3, 3), "w2": f32(4, 4, 1, 1), "fc": f32(16, 5), "fb": f32(5), **p}
    nodes = [
        node("ImageScaler", ["x"], ("a",), scale=0.5, bias=[0.1, 0.2, 0.3]),
        node("Conv", ["a", "w"], ("c",), pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ("n",)),
        node("Clip", ["n"], ("r",), min=0.0, max=6.0), node("Conv", ["r", "w2"], ("c2",)),
        node("Sum", ["c2", "r", "c"], ("t",)), node("Upsample", ["t"], ("u",), scales=[1.0, 1, 2, 2]),
        node("Slice", ["u"], ("sl",), starts=[0, 0], ends=[2, 2], axes=[2, 3]), node("Flatten", ["sl"], ("f",)),
        node("Gemm", ["f", "fc", "fb"], ("g",)), node("Softmax", ["g"]),
    ]  # fmt: skip
    return model(nodes, 7, {"x": x}, constants, typed=True), {"x": x}


def test_reports_name_the_nodes_of_the_file() -> None:
    data, feeds = old_net()
    nodes = onnx.load_from_string(data).graph.node
    names = [n.name for n in nodes]
    session = InferenceSession(data, threads=1, fallback=None)
    assert "read in the forms of opset 11 (the file: 7)" in session.notes
    assert session.coverage["n_nodes"] == session.coverage["n_engine"] == len(names)
    for row in session.explain(repeats=0):
        assert row["node"] in names
        assert names[row["layer"]] == row["node"]
    found = inspect(data)
    assert found["opset"] == 7
    layers = found["layers"]
    ops = {n.name: n.op_type for n in nodes}
    assert all(row["op"] == ops[row["name"]] for row in layers)
    assert [row["name"] for row in layers] == [n for n in names if n not in ("Clip of r", "Flatten of f")]  # not shown
    assert sum(row["nbytes"] for row in layers) == sum(
        numpy_helper.to_array(t).nbytes for t in onnx.load_from_string(data).graph.initializer
    )
    (got,) = session.run(None, feeds)
    np.testing.assert_allclose(got, run_ort(data, feeds)[0], rtol=1e-4, atol=1e-5)


def test_packed_and_back() -> None:
    """A .sct keeps the old opset; it runs, and unpacks to a file that ONNX Runtime runs alike."""
    data, feeds = old_net()
    packed = pack(data)
    back = unpack(packed)
    assert onnx.load_from_string(back).opset_import[0].version == 7
    want = run_ort(data, feeds)[0]
    np.testing.assert_allclose(run_ort(back, feeds)[0], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(packed, feeds)[0], run(data, feeds)[0])


def test_unpacked_files_of_the_first_ir_versions_are_valid() -> None:
    """Before IR version 4 every initializer is an input as well; pack leaves that out, unpack puts it back."""
    x, w = f32(2, 3), f32(3, 4)
    nodes = [node("MatMul", ["x", "w"], ("m",)), node("Clip", ["m"], min=0.0)]
    for ir_version in (3, 4):
        data = model(nodes, 7, {"x": x}, {"w": w}, ir_version=ir_version, typed=True)
        made = onnx.load_from_string(data)
        made.graph.output[0].type.tensor_type.shape.dim.extend(
            [onnx.TensorShapeProto.Dimension(dim_value=d) for d in (2, 4)]
        )
        back = unpack(pack(made.SerializeToString()))
        onnx.checker.check_model(back)
        assert len(onnx.load_from_string(back).graph.input) == (2 if ir_version < 4 else 1)
        assert pack(back) == pack(made.SerializeToString())
        np.testing.assert_array_equal(run_ort(back, {"x": x})[0], run_ort(data, {"x": x})[0])


def test_parts_of_an_old_model() -> None:
    """A node that has no new form goes to ONNX Runtime; the engine's parts around it are upgraded on their own."""
    x, w = f32(1, 3, 8, 8), {"w": f32(4, 3, 3, 3), "w2": f32(4, 4, 3, 3)}
    nodes = [
        node("Conv", ["x", "w"], ("c",)), node("Clip", ["c"], ("r",), min=0.0),
        node("Pad", ["r"], ("p",), pads=[0, 0, 1, 1, 0, 0, 1, 1]), node("LpNormalization", ["p"], ("m",)),
        node("Conv", ["m", "w2"], ("d",)), node("Clip", ["d"], max=1.0),
    ]  # fmt: skip
    data = model(nodes, 9, {"x": x}, w)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = InferenceSession(data, threads=1)
        (got,) = session.run(None, {"x": x})
    assert [h["op"] for h in session.coverage["handed_over"]] == ["LpNormalization"]
    np.testing.assert_allclose(got, run_ort(data, {"x": x})[0], rtol=1e-4, atol=1e-4)


def test_the_newest_opset_is_named() -> None:
    x = f32(2)
    for opset in (0, 24):
        with pytest.raises(UnsupportedError, match="supported: 1 to 23"):
            run(model([node("Relu", ["x"])], opset, {"x": x}), {"x": x})
    assert "Upsample" in _native.supported_operators()


def test_resize_of_the_first_tensorflow_files() -> None:
    """tf_half_pixel_for_nn was a word of opsets 11 and 12."""
    x = f32(1, 2, 4, 5)
    ways = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "mode": "nearest", "nearest_mode": "floor"}
    for scales in ([1, 1, 2, 3], [1, 1, 0.5, 1.7]):
        constants = {"r": np.zeros(0, np.float32), "s": np.float32(scales)}
        data = model([node("Resize", ["x", "r", "s"], **ways)], 11, {"x": x}, constants)
        np.testing.assert_array_equal(run(data, {"x": x})[0], run_ort(data, {"x": x})[0])


def test_types_that_attributes_of_opset_23_name() -> None:
    scale, zero, x, q = np.float32(0.1), np.uint8(3), f32(2, 3), np.arange(6, dtype=np.uint8).reshape(2, 3)
    for op, name, given in (("DequantizeLinear", "output_dtype", q), ("QuantizeLinear", "precision", x)):
        for dtype in (TensorProto.FLOAT, TensorProto.FLOAT16):
            said = {name: dtype}
            data = model([node(op, ["x", "s", "z"], **said)], 23, {"x": given}, {"s": scale, "z": zero}, ir_version=10)
            if dtype == TensorProto.FLOAT:
                assert run(data, {"x": given})[0].shape == (2, 3)
                continue
            with pytest.raises(UnsupportedError, match=f"{name} float16"):
                run(data, {"x": given})
