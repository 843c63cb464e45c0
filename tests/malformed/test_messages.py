"""Messages repeat at most 80 characters of a name that a file holds."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper

from secateur.engine import InferenceSession
from secateur.errors import FormatError, SecateurError, UnsupportedError, UsageError
from secateur.native import _native
from secateur.shell import runtimes
from secateur.training import augment

LONG = "x" * 5000


def model(node: str, op: str, inputs: list[str], given: str = "x") -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in (given, "y"))
    graph = helper.make_graph([helper.make_node(op, inputs, ["y"], name=node)], "g", [x], [y])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(whole.SerializeToString())


def said(error: SecateurError) -> str:
    text = str(error)
    assert max(map(len, re.findall(r"\w+", text))) <= 80, text
    return text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fallback", [None, "onnxruntime"])
def test_long_names_of_a_file(fallback: str | None) -> None:
    if fallback is not None:
        try:
            runtimes.onnxruntime()
        except ImportError:
            pytest.skip("ONNX Runtime is not installed")
    for node, op, inputs in ((LONG, "Nope", ["x"]), ("a", "Q" * 5000, ["x"])):
        with pytest.raises(UnsupportedError) as refused:
            InferenceSession(model(node, op, inputs), threads=1, fallback=fallback)
        said(refused.value)
    for node, op, inputs in (("a", "Relu", [LONG]), (LONG, "MatMul", ["x", "x"])):
        with pytest.raises(FormatError) as damaged:
            InferenceSession(model(node, op, inputs), threads=1, fallback=fallback)
        assert "...'" in said(damaged.value)


def test_what_stands_after_a_long_name_or_an_apostrophe_stays() -> None:
    with pytest.raises(UnsupportedError) as refused:
        _native.Session(model("the net's " + "y" * 100, "Nope", ["x"]), 1)
    assert re.search(r"supported: .*Xor$|supported: .*Where", said(refused.value))
    assert "operator Nope is not supported" in str(refused.value)


def test_names_that_a_caller_passes() -> None:
    session = InferenceSession(model("a", "Relu", ["x"]), threads=1)
    x = np.ones((2, 3), np.float32)
    for names, feeds in (([LONG], {"x": x}), (None, {LONG: x})):
        with pytest.raises(UsageError) as refused:
            session.run(names, feeds)
        said(refused.value)
    with pytest.raises(UsageError) as unknown:
        augment.get(LONG)
    said(unknown.value)
