"""The C++ reader and the slow reader written from docs/format.md alone say the same about the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur import formats

onnx = pytest.importorskip("onnx")
native = pytest.importorskip("secateur.native._native")
import oracle_reader as oracle  # noqa: E402
from format_nets import lenet, mlp, model_bytes, random_graph, sparse  # noqa: E402
from make_golden import in_blocks  # noqa: E402
from test_roundtrip import DTYPES, ONNX, make, stream  # noqa: E402


def agree(packed):
    got = oracle.read(packed)
    model = onnx.load_from_string(formats.unpack(packed))
    assert got.opsets == {o.domain: o.version for o in model.opset_import}
    assert got.ir == model.ir_version
    for mine, theirs in ((got.inputs, model.graph.input), (got.outputs, model.graph.output)):
        assert [(n, t) for n, t, _ in mine] == [(v.name, v.type.tensor_type.elem_type) for v in theirs]
        for (_, _, shape), v in zip(mine, theirs, strict=True):
            dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in v.type.tensor_type.shape.dim]
            assert (shape or []) == dims
    tensors = {t["name"]: t for t in got.constants}
    assert list(tensors) == [i.name for i in model.graph.initializer]
    for i in model.graph.initializer:
        t = tensors[i.name]
        assert (t["dtype"], t["dims"], t["data"]) == (i.data_type, list(i.dims), i.raw_data)
    assert len(got.nodes) == len(model.graph.node)
    for mine, node in zip(got.nodes, model.graph.node, strict=True):
        assert mine["op"] == (f"{node.domain}:{node.op_type}" if node.domain else node.op_type)
        assert (mine["inputs"], mine["outputs"], mine["name"]) == (list(node.input), list(node.output), node.name)
        assert set(mine["attrs"]) == {a.name for a in node.attribute}
        for a in node.attribute:
            value = onnx.helper.get_attribute_value(a)
            kind, ours = mine["attrs"][a.name]
            if kind == 4:
                assert ours["data"] == value.raw_data
            elif kind in (3, 7):
                assert ours == (value.decode() if kind == 3 else [v.decode() for v in value])
            else:
                assert ours == value


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    st.sampled_from(["few", "grid", "any", "bits"]),
)
def test_any_tensor(seed, dtype, shape, density, kind):
    a = make(seed, dtype, shape, density, kind)
    coded, _ = stream(a)
    t = oracle.Tensor(ONNX[dtype], list(shape), coded + b"\xa5\x00\xff")
    assert t.bytes() == a.tobytes()
    assert t.used == len(coded)


def holes(g, shape, density, values):
    return np.where(g.random(shape) < density, values, 0).astype(np.float32)


def grid(g):
    return g.integers(-3000, 3000, (60, 64)) * np.float32(0.013)


def one_of_four(g):
    kept = np.arange(4) == g.integers(0, 4, (64, 8, 1))
    return np.where(kept, g.normal(size=(64, 8, 4)), 0).reshape(64, 32).astype(np.float32)


def windowed(g):
    angles = 2 * np.pi * np.outer(np.arange(17), np.arange(32)) / 32
    return (np.cos(angles) * np.hanning(33)[:-1]).astype(np.float32)


# One tensor for every layout and codec that the encoder chooses somewhere.
CASES = {
    "sparse/codebook": lambda g: sparse(g, (20, 10, 5, 5), 0.05),
    "sparse/fields": lambda g: holes(g, (60, 64), 0.05, g.normal(size=(60, 64))),
    "dense/grid": lambda g: holes(g, (60, 64), 0.05, grid(g)),
    "sparse/grid": lambda g: holes(g, (60, 64), np.kron([[0.9], [0.05]], np.ones((30, 64))), grid(g)),
    "dense/codebook": lambda g: sparse(g, (70,), 1.0),
    "dense/fields": lambda g: g.normal(size=300).astype(np.float16),
    "dense/ints": lambda g: g.integers(-1000, 1000, 12),
    "dense/raw": lambda g: np.frombuffer(g.bytes(400), np.float64).copy(),
    "dense/split": lambda g: g.normal(size=(300, 230)).astype(np.float32),
    "gaps/split": lambda g: holes(g, (300, 300), 0.8, g.normal(size=(300, 300))),
    "gaps/codebook": lambda g: np.where(g.random(1_100_000) < 2e-5, 1.5, 0).astype(np.float16),
    "nm/fields": lambda g: one_of_four(g),
    "blocks/codebook": lambda g: np.sign(in_blocks(g, (60, 64), (4, 2), 0.2)),
    "blocks/grid": lambda g: np.where(in_blocks(g, (60, 64), (4, 1), 0.2), grid(g), 0).astype(np.float32),
    "blocks/fields": lambda g: in_blocks(g, (60, 64), (1, 8), 0.2),
    "blocks/ints": lambda g: np.rint(in_blocks(g, (61, 63), (8, 1), 0.2) * 900).astype(np.int16),
    "blocks/split": lambda g: in_blocks(g, (256, 512), (4, 4), 0.6),
    "dense/matched": windowed,
}

# What the matched codec is for, at every width: mirrored rows, flipped signs, tiles, masks, tables, curves.
REPEATS = {
    "mirror": lambda g: np.concatenate([(w := g.normal(size=(6, 20)).astype(np.float32)), -w[:, ::-1]], axis=1),
    "tiles": lambda g: np.tile(g.normal(size=(3, 16)).astype(np.float16), (9, 1)),
    "doubles": lambda g: np.tile(g.normal(size=9), 7),
    "mask": lambda g: np.where(np.tril(np.ones((40, 40))), 0, -np.inf).astype(np.float32),
    "plane": lambda g: np.arange(40)[:, None] * 7 + np.arange(30),
    "bytes": lambda g: np.frombuffer(b"the same words again and again, " * 20 + g.bytes(200), np.uint8).copy(),
    "steps": lambda g: (np.arange(60)[:, None] ** 2 + g.integers(0, 99, 8)).astype(np.int32),
    "waves": lambda g: np.sin(np.outer(np.arange(90), [1, 0.3, 0.1, 0.01])).astype(np.float32),
    "half waves": lambda g: np.sin(np.outer(np.arange(90), [0.1, 0.01])).astype(np.float16),
    "tiny numbers": lambda g: (np.outer(np.arange(-40, 40), [1, 3]) * 1e-44).astype(np.float32),
    "infinite": lambda g: np.where(np.indices((90, 2))[0] % 20, np.outer(np.arange(90), [3e36, -1e37]), np.nan).astype(
        np.float32
    ),
    "unsigned": lambda g: np.cumsum(g.integers(0, 5, (50, 4)), axis=0).astype(np.uint16),
}


@pytest.mark.parametrize("name", CASES)
def test_every_layout_and_codec(name):
    a = CASES[name](np.random.default_rng(5))
    coded, report = stream(a)
    assert f"{report['layout']}/{report['codec']}" == name
    t = oracle.Tensor(ONNX[a.dtype.name], list(a.shape), coded)
    assert t.bytes() == a.tobytes()
    assert t.used == len(coded)


@pytest.mark.parametrize("name", REPEATS)
def test_repeats(name):
    with np.errstate(over="ignore"):
        a = np.ascontiguousarray(REPEATS[name](np.random.default_rng(5)))
    coded, report = stream(a)
    assert report["codec"] == "matched"
    assert native.sct_decode_tensor(ONNX[a.dtype.name], list(a.shape), coded)[0] == a.tobytes()
    t = oracle.Tensor(ONNX[a.dtype.name], list(a.shape), coded)
    assert t.bytes() == a.tobytes()
    assert t.used == len(coded)


def test_tensors_like_an_earlier_one():
    g = np.random.default_rng(2)
    w = g.normal(size=(24, 40)).astype(np.float32)
    constants = {
        "a": w, "equal": w.copy(), "other dims": w.reshape(-1, 8), "other type": w.view(np.int32), "empty": w[:0],
        "negative": -w, "turned": w.T.copy(), "turned back": -w.T.copy().reshape(40, 24), "small": np.float32([1, 2]),
    }  # fmt: skip
    model = model_bytes([], constants, [], [])
    packed = formats.pack(model)
    agree(packed)
    codecs = {s.name: (s.codec, s.nbytes) for s in formats.sections(packed) if s.kind == "tensor"}
    assert {k for k, v in codecs.items() if v[0] == "same"} == {"equal", "other dims", "other type"}
    assert all(codecs[k][0] == "matched" and codecs[k][1] < 40 for k in ("negative", "turned", "turned back"))
    assert oracle.read(formats.pack(model, exact=True)) == model


def test_fast_codebook():
    a = sparse(np.random.default_rng(1), (300, 300), 0.9)
    coded, _ = stream(a)
    t = oracle.Tensor(1, [300, 300], coded)
    assert t.fast
    assert t.bytes() == a.tobytes()


def test_a_lenet_and_a_flattened_period():
    g = np.random.default_rng(3)
    weights = {
        "conv1.weight": sparse(g, (6, 1, 5, 5), 0.4), "conv1.bias": sparse(g, (6,), 1.0),
        "conv2.weight": sparse(g, (12, 6, 5, 5), 0.05), "conv2.bias": sparse(g, (12,), 1.0),
        "fc1.weight": sparse(g, (20, 192), 0.04), "fc1.bias": sparse(g, (20,), 1.0),
        "fc2.weight": sparse(g, (10, 20), 0.3), "fc2.bias": sparse(g, (10,), 1.0),
    }  # fmt: skip
    # Whole channels of the map missing for whole outputs: the period pays.
    weights["fc1.weight"] *= np.kron(g.random((20, 12)) < 0.4, np.ones((1, 16))).astype(np.float32)
    agree(formats.pack(lenet(weights)))


@pytest.mark.parametrize("seed", range(5))
def test_random_graphs(seed):
    agree(formats.pack(random_graph(seed)))


def test_exact_and_sectioned_files():
    for model in (mlp(seed=2), random_graph(4)):
        assert oracle.read(formats.pack(model, exact=True)) == model
    g = np.random.default_rng(0)
    big = model_bytes([], {"w": g.normal(size=(160, 160)).astype(np.float32), "v": sparse(g, (9, 9))}, [], [])
    packed = formats.pack(big)
    assert packed[4] == 1
    agree(packed)
    assert oracle.read(formats.pack(big, exact=True)) == big
