"""The size law on hostile tensors, exact sizes, golden bytes, the catalogue of layouts and codecs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from secateur import catalog, formats

onnx = pytest.importorskip("onnx")
native = pytest.importorskip("secateur.native._native")
from format_nets import lenet, model_bytes, sparse  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"


def hostile():
    g = np.random.default_rng(2)
    yield "one survivor in a million", np.eye(1, 300_000, 277_777, dtype=np.float32)
    yield "five survivors in three million", np.where(np.arange(3_000_000) % 600_001 == 0, 1.5, 0).astype(np.float32)
    yield "all distinct", g.normal(size=3000).astype(np.float32)
    yield "every second distinct", np.repeat(g.normal(size=700), 2).astype(np.float32)
    yield "random patterns", np.frombuffer(g.bytes(40_000), np.uint32).view(np.float32)
    yield "one rare value", np.where(np.arange(200_000) == 5, 7, 1).astype(np.float32)
    yield "skewed codebook", g.choice(np.arange(1, 200, dtype=np.float32), 70_000, p=[0.97] + [0.03 / 198] * 198)
    yield "alternating", np.tile(np.float32([0, 1]), 5000).reshape(100, 100)
    yield "checkerboard of signs", np.where(np.indices((64, 64)).sum(0) % 2, 0.5, -0.5).astype(np.float16)
    yield (
        "bursts",
        (np.kron(g.random((40, 1)) < 0.1, np.ones((1, 200))) * g.choice([1, 2], (40, 200))).astype(np.float32),
    )
    yield "int8 of a layer", np.clip(g.normal(size=(64, 144)) * 20, -127, 127).astype(np.int8)
    yield "int64 extremes", np.array([-(2**63), 2**63 - 1, 0, -1, 2**62], np.int64)
    yield "not a number", np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], np.float32)
    yield "2:4", (g.normal(size=(64, 32, 4)) * (np.argsort(g.random((64, 32, 4))) < 2)).reshape(64, 128)
    yield "half precision", g.normal(size=(300, 300)).astype(np.float16)
    yield "half in single", g.normal(size=(300, 300)).astype(np.float16).astype(np.float32)
    yield "bool", g.random((30, 30)) < 0.03
    yield "powers of two", np.ldexp(np.float32(1), g.integers(-9, 1, 5000)).astype(np.float32)


@pytest.mark.parametrize(("name", "values"), list(hostile()), ids=lambda x: x if isinstance(x, str) else "")
def test_size_law(name, values):
    m = formats.measure(values)
    assert m.nbytes <= 1.03 * m.bound_nbytes + 32, m
    assert m.nbytes <= m.max_nbytes
    assert m.nbytes <= values.nbytes + 2
    packed = formats.pack(model_bytes([], {"w": values}, [], []))
    back = onnx.numpy_helper.to_array(onnx.load_from_string(formats.unpack(packed)).graph.initializer[0])
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert back.tobytes() == values.tobytes()
    assert [s.nbytes for s in formats.sections(packed) if s.kind == "tensor"] == [m.nbytes]


def test_a_pruned_lenet_has_a_tiny_graph():
    g = np.random.default_rng(0)
    shapes = {"conv1": (17, 1, 5, 5), "conv2": (43, 17, 5, 5), "fc1": (103, 688), "fc2": (10, 103)}
    density = {"conv1": 0.5, "conv2": 0.034, "fc1": 0.009, "fc2": 0.27}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = sparse(g, shape, density[name])
        weights[f"{name}.bias"] = sparse(g, shape[:1], 1.0)
    packed = formats.pack(lenet(weights))
    parts = {s.name: s for s in formats.sections(packed)}
    assert parts["graph"].nbytes <= 24
    assert parts["header"].nbytes + parts["checksum"].nbytes == 9
    assert sum(s.nbytes for s in parts.values()) == len(packed)
    assert len(packed) < 2400  # unstructured random supports: the worst case for 1,750 survivors
    assert parts["fc1.weight"].nbytes <= parts["fc1.weight"].bound_nbytes


def test_structure_is_found():
    g = np.random.default_rng(1)
    w = g.choice(np.float32([0.5, 1, 2, 3]), (64, 64))  # a negative value times 0 would be -0.0, which is kept
    rows = w * (g.random((64, 1)) < 0.3)
    unstructured = w * (g.random((64, 64)) < (rows != 0).mean())
    assert formats.measure(rows).nbytes < 0.7 * formats.measure(unstructured).nbytes
    blocks = w * np.kron(g.random((16, 64)) < 0.1, np.ones((4, 1)))
    spread = w * (g.random((64, 64)) < 0.1)
    assert formats.measure(blocks.astype(np.float32)).nbytes < 0.8 * formats.measure(spread).nbytes


def test_mantissa_bits_are_not_paid_when_zero():
    g = np.random.default_rng(1)
    fine = g.normal(size=16).astype(np.float32)
    coarse = (fine.view(np.uint32) & np.uint32(0xFFF80000)).view(np.float32)
    pick = g.integers(0, 16, 100)
    assert formats.measure(coarse[pick]).nbytes + 25 < formats.measure(fine[pick]).nbytes


def test_inputs_are_not_changed():
    a = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    before = a.copy()
    assert formats.measure(a) == formats.measure(np.ascontiguousarray(a))
    assert (a == before).all()


def test_golden_bytes():
    """The same models give the same files on every machine, in every later minor version."""
    from make_golden import VERSIONS

    for version, models in VERSIONS.items():
        for name, (model, exact) in models().items():
            packed = formats.pack(model, exact=exact)
            assert packed == GOLDEN.joinpath(version, f"{name}.sct").read_bytes(), name
            assert packed[3] >> 4 == int(version[0])


@pytest.mark.parametrize(("room", "table"), [("layouts", "Layout"), ("codecs", "Codec")])
def test_catalogue_matches_the_table_of_the_reader(room, table):
    """One file here, one there, of one name and number; and each is a row of the table."""
    folder = Path(__file__).parents[2] / "engine/formats"
    rows = re.search(rf"using {table} = std::variant<([^;]*)>;", (folder / "plan.h").read_text())
    assert rows
    codes, found = set(), set()
    for name in catalog.names(f"formats.{room}"):
        method = catalog.load(f"formats.{room}", name)
        source = folder.joinpath(room, f"{name}.h").read_text()
        assert f'kName = "{name}";' in source
        assert f"kNumber = {method.code};" in source
        found.add(re.search(r"struct (\w+)[^;{]*\{\s+static constexpr uint32_t kNumber", source)[1])
        assert method.stores
        assert method.when
        assert method.size
        codes.add(method.code)
    assert found == set(re.findall(r"::(\w+)", rows[1]))
    assert codes == set(range(len(codes)))
