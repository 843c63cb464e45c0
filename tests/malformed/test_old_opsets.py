"""Old files with numbers that were never meant: the engine's own errors, or an answer, and nothing else."""

import contextlib
import random

import numpy as np
import onnx
import pytest

from parity.make_exporters import OLD
from secateur.engine import InferenceSession, inspect
from secateur.errors import FormatError, UnsupportedError, UsageError

EDGE = (0, 1, -1, 2, 7, 100, 2**31, 2**40, -(2**63), 2**63 - 1)


def mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    """One attribute, input, opset or shape of the file."""
    node = rng.choice(model.graph.node)
    what = rng.randrange(6)
    if what <= 2 and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(EDGE)
        elif attribute.floats:
            attribute.floats[rng.randrange(len(attribute.floats))] = rng.choice((0.0, -1.0, 1e30, float("nan")))
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = rng.choice(EDGE)
        else:
            node.attribute.remove(attribute)
    elif what == 3 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", *(t.name for t in model.graph.initializer)])
    elif what == 4:
        model.opset_import[0].version = rng.randrange(1, 13)
    elif len(node.input) > 1:
        del node.input[-1]


@pytest.mark.parametrize("name", sorted(OLD))
def test_mutated_old_files(name: str) -> None:
    build, opsets = OLD[name]
    original = onnx.load_from_string(build(opsets[0]))
    constants = {t.name for t in original.graph.initializer}
    feeds = {
        i.name: np.zeros([d.dim_value or 1 for d in i.type.tensor_type.shape.dim], np.float32)
        for i in original.graph.input
        if i.name not in constants
    }
    ran = refused = 0
    for seed in range(400):
        rng = random.Random(seed)
        model = onnx.ModelProto()
        model.CopyFrom(original)
        for _ in range(rng.randrange(1, 3)):
            mutate(model, rng)
        data = model.SerializeToString()
        try:
            InferenceSession(data, threads=1, fallback=None).run(None, feeds)
            ran += 1
        except (FormatError, UnsupportedError, UsageError, MemoryError):
            refused += 1
        with contextlib.suppress(FormatError, UnsupportedError, UsageError, MemoryError):
            inspect(data)
    assert ran > 50
    assert refused > 50
