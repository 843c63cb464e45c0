"""A `.sct` is smaller than what `xz -9` makes of the ONNX file, whatever the graph coder can or cannot hold."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from secateur import formats
from secateur.errors import FormatError, UnsupportedError

onnx = pytest.importorskip("onnx")
pytest.importorskip("secateur.native._native")
import make_golden  # noqa: E402
from format_nets import info, mlp, model_bytes, random_graph  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

EXPORTERS = sorted(Path(__file__).parents[1].joinpath("parity/exporters").glob("*.onnx"))


def transforms() -> dict[str, np.ndarray]:
    """What front ends for sound and tables of positions hold."""
    k = np.outer(np.arange(129), np.arange(256)) * 2 * np.pi / 256
    window = np.hanning(257)[:-1]
    angles = np.arange(256)[:, None] / 10000 ** (np.arange(0, 64, 2) / 64)
    return {
        "real": (np.cos(k) * window).astype(np.float32)[:, None],
        "imag": (-np.sin(k) * window).astype(np.float32)[:, None],
        "dct": np.cos(np.pi / 40 * np.outer(np.arange(40), np.arange(40) + 0.5)).astype(np.float32),
        "positions": np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32),
        "mask": np.where(np.tril(np.ones((128, 128))), 0, -np.inf).astype(np.float32),
        "ids": np.arange(512)[None],
    }  # fmt: skip


def equal_tensors() -> dict[str, np.ndarray]:
    g = np.random.default_rng(1)
    w, r = (g.normal(size=(1, 64, 16)).astype(np.float32) for _ in range(2))
    layers = {f"{n}{i}": a for i in range(10) for n, a in (("w", w), ("r", r))}
    return layers | {"turned": w[0].T.copy(), "negative": -r, "as ints": w.view(np.int32)}


def models() -> dict[str, bytes]:
    found = {f.stem: f.read_bytes() for f in EXPORTERS}
    found |= {f"golden {k}": m for k, (m, _) in make_golden.models().items()}
    found |= {f"random {seed}": random_graph(seed) for seed in range(12)}
    found |= {"transforms": model_bytes([], transforms(), [], []), "equal": model_bytes([], equal_tensors(), [], [])}
    return found | {f"beyond the graph coder: {k}": m for k, m in beyond().items()}


def beyond() -> dict[str, bytes]:
    """Valid files with what the graph coder has no words for."""
    w = np.random.default_rng(3).normal(size=(40, 40)).astype(np.float32)

    def branch(name: str) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], [f"{name}_w"], value=numpy_helper.from_array(w))
        inner = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])
        nested = helper.make_graph([constant, inner], name, [], [info(f"{name}_y", None)])
        choose = helper.make_node("If", ["c"], [f"{name}_z"], then_branch=nested, else_branch=nested)
        return helper.make_graph([choose], f"{name}_outer", [], [info(f"{name}_z", None)])

    both = helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    inputs = [info("x", ["n", 40]), info("c", [], TensorProto.BOOL)]
    found = {"subgraphs": model_bytes([both], {"w": w}, inputs, [info("y", None)])}

    proto = onnx.load_from_string(mlp())
    proto.graph.initializer.append(helper.make_tensor("labels", TensorProto.STRING, [30], [b"one word"] * 30))
    proto.graph.initializer.append(helper.make_tensor("fours", TensorProto.INT4, [50], np.arange(50) % 16 - 8))
    proto.graph.initializer.append(
        helper.make_tensor("eights", TensorProto.FLOAT8E4M3FN, [64], bytes(range(64)), raw=True)
    )
    proto.graph.initializer.append(helper.make_tensor("floats", TensorProto.FLOAT, [99], np.arange(99.0)))
    proto.graph.initializer.append(helper.make_tensor("doubles", TensorProto.DOUBLE, [9, 9], np.arange(81.0)))
    values = numpy_helper.from_array(np.float32([1.5] * 20), "sparse")
    indices = numpy_helper.from_array(np.arange(20), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1000]))
    found["types"] = proto.SerializeToString()

    proto = onnx.load_from_string(mlp())
    body = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(w)),
        helper.make_node("MatMul", ["a", "k"], ["b"]),
    ]
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node.insert(0, helper.make_node("Twice", ["extra"], ["unused"], domain="own"))
    proto.graph.input.append(info("extra", ["n", 40]))
    proto.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"x"]))
    found["functions"] = proto.SerializeToString()
    return found


MODELS = models()


@pytest.mark.parametrize("name", MODELS)
def test_smaller_than_xz(name: str) -> None:
    model = MODELS[name]
    xz = len(lzma.compress(model, preset=9))
    assert len(formats.pack(model)) <= xz
    assert len(formats.pack(model, exact=True)) <= xz


@pytest.mark.parametrize("name", beyond())
def test_any_valid_file_comes_back(name: str) -> None:
    model = beyond()[name]
    packed = formats.pack(model)
    assert formats.unpack(packed) == model
    assert formats.pack(formats.unpack(packed)) == packed == formats.pack(model, exact=True)
    parts = formats.sections(packed)
    assert sum(p.nbytes for p in parts) == len(packed)
    assert any(p.codec == "same" for p in parts) == (name == "subgraphs")


def test_types_of_few_bits_are_cut_as_bytes() -> None:
    parts = {p.name: p for p in formats.sections(formats.pack(beyond()["types"])) if p.kind == "tensor"}
    assert (parts["eights"].dtype, parts["eights"].shape) == ("uint8", (64,))
    assert (parts["floats"].dtype, parts["floats"].shape) == ("float32", (99,))
    assert (parts["doubles"].dtype, parts["doubles"].shape) == ("float64", (9, 9))
    assert parts["sparse"].shape == (20,)


def test_a_long_skeleton() -> None:
    """Text beyond the first 2^20 bytes is stored like a tensor."""
    g = np.random.default_rng(0)
    proto = onnx.load_from_string(mlp())
    proto.doc_string = "all work and no play " * 60_000 + "".join(map(chr, g.integers(32, 127, 3000)))
    model = proto.SerializeToString()
    packed = formats.pack(model, exact=True)
    assert formats.unpack(packed) == model
    assert len(packed) <= len(lzma.compress(model, preset=9))


def test_repeats_of_real_front_ends_are_found() -> None:
    parts = {s.name: s for s in formats.sections(formats.pack(MODELS["transforms"])) if s.kind == "tensor"}
    assert all(parts[n].codec == "matched" for n in ("real", "imag", "positions", "mask", "ids"))
    assert parts["real"].nbytes < 0.2 * 4 * 129 * 256
    assert parts["imag"].nbytes < 0.25 * parts["real"].nbytes  # told by the other tensor
    assert parts["positions"].nbytes < 0.5 * 4 * 256 * 64
    assert parts["ids"].nbytes + parts["mask"].nbytes < 60


def test_equal_tensors_are_stored_once() -> None:
    packed = formats.pack(MODELS["equal"])
    tensors = [s for s in formats.sections(packed) if s.kind == "tensor"]
    assert sum(s.nbytes for s in tensors if s.codec == "same") <= 3 * 19
    assert len(packed) < 2 * 4 * 64 * 16 + 500
    assert formats.pack(formats.unpack(packed)) == packed


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(FormatError, match="no graph"):
        formats.pack(onnx.ModelProto(ir_version=8).SerializeToString(), exact=True)
    for damaged in (b"\x00\x01\x02", mlp()[:-3], b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0b\x00"):
        for exact in (False, True):
            with pytest.raises(FormatError):
                formats.pack(damaged, exact=exact)


def test_external_data_is_refused() -> None:
    proto = onnx.load_from_string(mlp())
    t = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(t, "weights.bin", length=len(t.raw_data))
    t.ClearField("raw_data")
    for exact in (False, True):
        with pytest.raises(UnsupportedError, match="external"):
            formats.pack(proto.SerializeToString(), exact=exact)
