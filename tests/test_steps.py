"""Agreement of networks with steps: a spike that rounding tips is one example's matter, a wrong weight everyone's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from secateur.export import onnx as export
from secateur.proof import steps
from secateur.proof.verify import outputs_agree


class Step(nn.Module):
    """1 above `at`, beside a part without steps."""

    def __init__(self, at: float = 0.0, gain: float = 1.0) -> None:
        super().__init__()
        self.a, self.at = nn.Linear(1, 1, bias=False), at
        nn.init.constant_(self.a.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) > self.at).float() + x


def written(net: nn.Module) -> bytes:
    return export.to_bytes(net, torch.ones(2, 1))


def test_which_networks_have_steps() -> None:
    assert steps.has_steps(written(Step()))
    assert not steps.has_steps(written(nn.Linear(1, 1)))


def one_call(op: str, *dtypes: int, constants: tuple[float, ...] = (), **attributes: Any) -> bytes:
    """A network of one call on inputs of these types and float constants; `to`: what a Cast makes."""
    names = [f"x{i}" for i in range(len(dtypes))] + [f"c{i}" for i in range(len(constants))]
    inputs = [helper.make_tensor_value_info(n, t, [2, 3]) for n, t in zip(names, dtypes, strict=False)]
    node = helper.make_node(op, names, ["y"], **attributes)
    tensors = [numpy_helper.from_array(np.float32(v), f"c{i}") for i, v in enumerate(constants)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_empty_tensor_value_info("y")], tensors)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


F, INT, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@pytest.mark.parametrize(
    ("onnx", "wanted"),
    [
        (one_call("Greater", F, F), True),
        (one_call("Greater", INT, INT), False),
        (one_call("Equal", B, B), False),
        (one_call("Greater", F, constants=(0.5,)), True),
        (one_call("Greater", F, constants=(-np.inf,)), False),
        (one_call("Cast", F, to=INT), True),
        (one_call("Cast", F, to=B), True),
        (one_call("Cast", F, to=TensorProto.DOUBLE), False),
        (one_call("Cast", INT, to=F), False),
        (one_call("CastLike", F, INT), True),
        (one_call("CastLike", F, TensorProto.FLOAT16), False),
        (one_call("Hardmax", F), True),
        (one_call("Shrink", F), True),
        (one_call("ThresholdedRelu", F), True),
        (one_call("Mod", INT, INT), False),
        (one_call("ArgMax", F), True),
        (one_call("ArgMax", INT), False),
        (one_call("Softmax", F), False),
    ],
    ids=lambda v: str(v) if isinstance(v, bool) else "call",
)
def test_which_calls_are_steps(onnx: bytes, wanted: bool) -> None:
    assert steps.has_steps(onnx) is wanted


@pytest.mark.parametrize(("kind", "wanted"), [(F, True), (INT, False)])
def test_a_branch_has_the_steps_of_what_it_reads(kind: int, wanted: bool) -> None:
    inner = helper.make_graph(
        [helper.make_node("Less", ["x", "x"], ["less"])], "inner", [], [helper.make_empty_tensor_value_info("less")]
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    ends = [helper.make_tensor_value_info("yes", B, []), helper.make_tensor_value_info("x", kind, [3])]
    graph = helper.make_graph([node], "g", ends, [helper.make_tensor_value_info("y", B, [3])])
    assert steps.has_steps(helper.make_model(graph).SerializeToString()) is wanted


@pytest.mark.parametrize(("on_the_step", "agree"), [(0, True), (2, True), (40, False)])
def test_few_examples_may_lie_on_a_step(on_the_step: int, agree: bool) -> None:
    x = np.linspace(1, 2, 200, dtype=np.float32)[:, None]
    x[:on_the_step] = 0.5
    onnx = written(Step(0.5))
    above = written(Step(float(np.nextafter(np.float32(0.5), np.float32(0)))))  # the same step, a rounding away
    found = outputs_agree(above, onnx, None, {"x": x})
    assert found["agree"] is agree
    assert found["apart"] == on_the_step / 200


def test_a_wrong_weight_is_no_matter_of_steps() -> None:
    x = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
    found = outputs_agree(written(Step(gain=-1.0)), written(Step()), Step().eval(), {"x": x})
    assert not found["agree"]
    assert found["apart"] > 0.9


def test_the_usual_gap_leaves_out_the_examples_on_a_step() -> None:
    a = [np.zeros((100, 3), np.float32), np.float32(2.0)]
    b = [np.full((100, 3), 1e-6, np.float32), np.float32(2.0)]
    b[0][:5] = 1.0
    assert steps.usual_gap(a, b) == pytest.approx(1e-6)
    assert steps.share_apart(a, b, 1e-3) == 0.05
    assert steps.share_apart(a, [np.zeros((99, 3)), b[1]], 1e-3) == 1.0
