"""pack, unpack, measure, sections: what goes in comes out, and every byte is accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secateur import formats

onnx = pytest.importorskip("onnx")
native = pytest.importorskip("secateur.native._native")
from format_nets import mlp, random_graph  # noqa: E402

DTYPES = [
    "float32",
    "float16",
    "float64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "bool",
]
ONNX = {"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
        "float64": 11, "uint32": 12, "uint64": 13}  # fmt: skip


def stream(a):
    return native.sct_encode_tensor(ONNX[a.dtype.name], list(a.shape), a.tobytes())


def back(a, coded):
    data, used = native.sct_decode_tensor(ONNX[a.dtype.name], list(a.shape), coded)
    return np.frombuffer(data, a.dtype).reshape(a.shape), used


def make(seed, dtype, shape, density, kind):
    g = np.random.default_rng(seed)
    if dtype == "bool":
        return g.random(shape) < density
    info = None if dtype.startswith("float") else np.iinfo(dtype)
    if kind == "few":
        menu = g.normal(size=7) if info is None else g.integers(info.min, info.max, 7, endpoint=True, dtype=dtype)
        a = g.choice(menu, shape)
    elif kind == "grid":
        a = g.integers(-20, 20, shape) * 0.37 if info is None else g.integers(max(info.min, -9), 9, shape)
    elif kind == "bits":
        width = np.dtype(dtype).itemsize
        a = np.frombuffer(g.bytes(width * int(np.prod(shape))), dtype).reshape(shape)
    else:
        a = g.normal(size=shape) if info is None else g.integers(info.min, info.max, shape, endpoint=True, dtype=dtype)
    return np.where(g.random(shape) < density, np.asarray(a).astype(dtype), np.zeros((), dtype))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    st.sampled_from(["few", "grid", "any", "bits"]),
    st.binary(max_size=9),
)
def test_any_tensor_comes_back_and_obeys_the_size_law(seed, dtype, shape, density, kind, junk):
    a = make(seed, dtype, shape, density, kind)
    coded, report = stream(a)
    got, used = back(a, coded + junk)  # whatever follows a stream must not matter
    assert got.tobytes() == a.tobytes()
    assert used == len(coded) == report["nbytes"]
    assert len(coded) <= a.nbytes + 2
    assert len(coded) <= 1.03 * report["bound_bits"] / 8 + 32
    m = formats.measure(a)
    assert m.nbytes == len(coded)
    assert m.nnz == np.count_nonzero(a.view(f"V{a.itemsize}") != np.zeros((), a.dtype).view(f"V{a.itemsize}"))


def test_a_file_comes_back_and_its_parts_add_up():
    model = mlp(seed=1)
    packed = formats.pack(model)
    again = formats.unpack(packed)
    assert formats.pack(again) == packed
    parts = formats.sections(packed)
    assert sum(p.nbytes for p in parts) == len(packed)
    by_name = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load_from_string(model).graph.initializer}
    for p in parts:
        if p.kind == "tensor":
            values = by_name[p.name]
            m = formats.measure(values)
            assert (p.nbytes, p.layout, p.codec, p.nnz, p.n_values) == (m.nbytes, m.layout, m.codec, m.nnz, m.n_values)
            assert p.bound_nbytes == pytest.approx(m.bound_nbytes)
            assert (p.shape, p.dtype, p.nnz) == (values.shape, values.dtype.name, np.count_nonzero(values))
    assert formats.unpack(formats.pack(model, exact=True)) == model


def contents(t):
    """Type, shape and values to the bit, but for the sign of zeros, which factors lose (a test of its own, below)."""
    a = onnx.numpy_helper.to_array(t)
    return t.data_type, tuple(t.dims), (np.where(a == 0, a.dtype.type(0), a) if a.dtype == np.float32 else a).tobytes()


@settings(max_examples=60, deadline=None)
@example(85846743)  # a weight of a convolution with -0.0
@given(st.integers(0, 2**32 - 1))
def test_any_graph_keeps_what_law_1_names(seed):
    model = random_graph(seed)
    packed = formats.pack(model)
    again = formats.unpack(packed)
    a, b = onnx.load_from_string(model), onnx.load_from_string(again)
    assert {o.domain: o.version for o in a.opset_import} == {o.domain: o.version for o in b.opset_import}
    assert a.ir_version == b.ir_version
    assert list(a.graph.input) == list(b.graph.input)
    assert list(a.graph.output) == list(b.graph.output)
    mine, theirs = ({i.name: contents(i) for i in g.graph.initializer} for g in (a, b))
    assert mine == theirs
    assert [n.op_type for n in a.graph.node] == [n.op_type for n in b.graph.node]
    assert formats.pack(again) == packed
    assert formats.unpack(formats.pack(model, exact=True)) == model
    assert len(packed) <= len(model)


def test_the_sign_of_a_zero_weight_costs_nothing_and_the_sign_of_other_zeros_is_kept():
    g = np.random.default_rng(0)
    w = g.normal(size=(200, 100)).astype(np.float32)
    masked = w * (g.random(w.shape) < 0.1)  # -0.0 where a negative weight was dropped
    shift = masked[:, 0].copy()
    assert np.signbit(shift[shift == 0]).any()

    def model(weight):
        weights = [onnx.numpy_helper.from_array(a, n) for a, n in ((weight, "w"), (shift, "b"))]
        nodes = [
            onnx.helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
            onnx.helper.make_node("Div", ["h", "b"], ["y"]),  # a zero's sign tells here
        ]
        values = [onnx.helper.make_tensor_value_info(n, 1, ["batch", k]) for n, k in (("x", 100), ("y", 200))]
        graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], weights)
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()

    packed = formats.pack(model(masked))
    assert packed == formats.pack(model(masked + np.float32(0)))
    found = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(formats.unpack(packed)).graph.initializer
    }
    assert (found["w"] == masked).all()
    assert not np.signbit(found["w"][found["w"] == 0]).any()
    assert found["b"].tobytes() == shift.tobytes()
    exact = onnx.load_from_string(formats.unpack(formats.pack(model(masked), exact=True)))
    assert onnx.numpy_helper.to_array(exact.graph.initializer[0]).tobytes() == masked.tobytes()
