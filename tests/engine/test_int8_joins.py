"""Concat between integer layers moves bytes: exact sums behind it at every ISA, whole quads of channels or not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import engine

SIZE = (3, 5)


def joined(channels: tuple[int, ...], axis: int, signed: bool, weight: np.ndarray) -> bytes:
    """Quantized inputs, a Concat, and a 1x1 convolution that takes bytes and gives sums."""
    code = np.int8 if signed else np.uint8
    held = {"s": np.float32(0.5), "z": code(3), "w": weight.astype(np.int8), "sw": np.float32(0.25)}
    nodes, dequantized = [], []
    for i in range(len(channels)):
        nodes.append(helper.make_node("QuantizeLinear", [f"x{i}", "s", "z"], [f"q{i}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]))
        dequantized.append(f"d{i}")
    nodes += [
        helper.make_node("Concat", dequantized, ["c"], axis=axis),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"]),
        helper.make_node("Conv", ["cd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "joined",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["n", c, *SIZE]) for i, c in enumerate(channels)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(weight), None, None])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("isa", engine.isas())
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("channels", "axis", "kernel"),
    [
        ((8, 12), 1, "concat_quads"),
        ((4, 4, 3), -3, "concat_quads"),
        ((6, 10), 1, "concat"),  # quads would begin in the middle of others
        ((8, 8), 2, "concat"),
    ],
)
def test_bytes_of_one_grid_are_moved(
    channels: tuple[int, ...], axis: int, kernel: str, signed: bool, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(sum(channels))
    n_in = sum(channels) if axis != 2 else channels[0]
    weight = rng.integers(-9, 10, (5, n_in, 1, 1))
    x = {f"x{i}": rng.integers(-20, 30, (3, c, *SIZE)).astype(np.float32) for i, c in enumerate(channels)}
    low, high = (-128, 127) if signed else (0, 255)
    codes = [np.clip(np.rint(a / 0.5) + 3, low, high) - 3 for a in x.values()]
    wanted = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], np.concatenate(codes, axis)) * 0.5 * 0.25
    monkeypatch.setenv("SECATEUR_ISA", isa)
    session = engine.InferenceSession(joined(channels, axis, signed, weight), threads=1)
    assert kernel in {row["kernel"] for row in session.explain(batch=3)}
    np.testing.assert_array_equal(session.run(None, x)[0], wanted.astype(np.float32))
    assert session.run(None, {name: a[:0] for name, a in x.items()})[0].shape == (0, *wanted.shape[1:])
