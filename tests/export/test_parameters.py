"""The file holds the module's parameters: each once, under its name, as it is or transposed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from secateur.engine import InferenceSession
from secateur.export import onnx as target
from secateur.export.onnx import to_bytes

flags = st.booleans()
pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.HandedOverWarning")  # recurrent layers


def stored(data: bytes) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(data).graph.initializer}


def ops(data: bytes) -> list[str]:
    return [n.op_type for n in onnx.load_model_from_string(data).graph.node]


def assert_holds_its_parameters(net: nn.Module, data: bytes) -> None:
    """Every parameter once, and no other floats than scalars."""
    found = stored(data)
    for name, p in net.named_parameters():
        here = [found[n] if n == name else found[n].T for n in (name, f"{name}.T") if n in found]
        assert len(here) == 1, name
        np.testing.assert_array_equal(here[0], p.detach().numpy())
    known = {n for name, _ in net.named_parameters() for n in (name, f"{name}.T")}
    assert all(v.size <= 1 or v.dtype.kind != "f" for n, v in found.items() if n not in known)


class Sequence(nn.Module):
    def __init__(self, layer: nn.Module, start: bool = False) -> None:
        super().__init__()
        self.layer = layer
        states = layer.num_layers * (2 if layer.bidirectional else 1)
        self.h = nn.Parameter(torch.randn(states, 1, layer.hidden_size)) if start else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.layer.batch_first else x.transpose(0, 1)
        if self.h is None:
            y, last = self.layer(x)
        else:
            h = self.h.expand(-1, x.shape[0 if self.layer.batch_first else 1], -1).contiguous()
            y, last = self.layer(x, (h, h) if isinstance(self.layer, nn.LSTM) else h)
        return y, last[-1] if isinstance(last, tuple) else last


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), layers=st.integers(1, 2), both_ways=flags, bias=flags,
    batch_first=flags, start=flags, relu=flags,
)  # fmt: skip
def test_recurrent_layers_agree_with_torch_and_hold_their_parameters(
    kind: Any, layers: int, both_ways: bool, bias: bool, batch_first: bool, start: bool, relu: bool
) -> None:
    torch.manual_seed(0)
    more = {"nonlinearity": "relu"} if relu and kind is nn.RNN else {}
    layer = kind(3, 4, layers, bias=bias, batch_first=batch_first, bidirectional=both_ways, **more)
    net, x = Sequence(layer, start).eval(), torch.randn(2, 5, 3)
    data = to_bytes(net, x)  # compared with torch in ONNX Runtime inside
    assert_holds_its_parameters(net, data)
    assert ops(data).count(kind.__name__) == layers
    with torch.no_grad():
        want = [t.numpy() for t in net(x)]
    for got, wanted in zip(InferenceSession(data).run(None, {"x": x.numpy()}), want, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.filterwarnings("ignore:RNN module weights")
def test_an_lstm_with_projections_is_unrolled_and_holds_each_parameter_once() -> None:
    net = Sequence(nn.LSTM(3, 4, 2, proj_size=2, bidirectional=True, batch_first=True)).eval()
    data = to_bytes(net, torch.randn(2, 3, 3))
    assert "LSTM" not in ops(data)
    assert_holds_its_parameters(net, data)


class Head(nn.Module):
    """The words are tied to the head: looked up as they are, multiplied transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x))


class Twice(nn.Module):
    """One layer in two places, on three axes: MatMul of the transposed weight, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc(x)))


class Computed(nn.Module):
    """Weights that the code moves and computes before it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(s)) for s in ((2, 3, 4), (5, 4), (3, 5, 2)))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.a.reshape(6, 4).t()[:, :5]
        y = F.linear(y, (self.b * 2 - self.b.mean()).t())
        return F.conv1d(y.transpose(1, 2)[:, :3], self.c.permute(1, 0, 2))


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (Head, torch.arange(6).reshape(2, 3)),
        (Twice, torch.randn(2, 3, 4)),
        (Computed, torch.randn(2, 3, 4)),
        (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2)), torch.randn(2, 4, 3, 3)),
    ],
)
def test_parameters_of_other_networks_are_stored_once_and_as_they_are(make: Any, x: Tensor) -> None:
    torch.manual_seed(0)
    net = make().eval()
    data = to_bytes(net, x)
    assert_holds_its_parameters(net, data)
    name = onnx.load_model_from_string(data).graph.input[0].name
    with torch.no_grad():
        want = net(x).numpy()
    np.testing.assert_allclose(InferenceSession(data).run(None, {name: x.numpy()})[0], want, rtol=1e-4, atol=1e-5)


def test_codes_of_a_weight_whose_outputs_lie_on_another_axis() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 3, 2, 2, bias=False)).eval()
    scale = torch.tensor([0.1, 0.02, 0.5]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        net[0].weight.copy_(torch.randint(-7, 8, (4, 3, 2, 2)) * scale)
    data = to_bytes(net, torch.randn(2, 4, 3, 3), quantised={"0.weight": scale})
    assert stored(data)["0.weight"].dtype == np.int8
    assert stored(data)["0.weight_scale"].shape == (3,)


@pytest.mark.parametrize("axes", [(4,), (4, 1), (1, 3), ()], ids=["rows", "rows shaped", "columns", "one"])
def test_codes_of_a_weight_that_is_stored_turned_have_their_scales_turned(axes: tuple[int, ...]) -> None:
    class Gains(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.w = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.w.t()

    torch.manual_seed(0)
    scale = torch.tensor([0.5, 0.25, 2.0, 1.0])[: math.prod(axes)].reshape(axes)
    net = Gains(torch.randint(-7, 8, (4, 3)) * (scale[:, None] if len(axes) == 1 else scale))
    plain, data = (to_bytes(net, torch.randn(2, 3, 4), quantised=q) for q in (None, {"w": scale}))
    assert target.quantised(plain, {"w": scale}) == data
    assert stored(data)["w.T"].dtype == np.int8
    np.testing.assert_array_equal(stored(target.dequantised(data))["w.T"], net.w.detach().numpy().T)
