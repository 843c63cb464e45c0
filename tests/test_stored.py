"""Every tensor of a network is found in its written file, however the exporter wrote it, or named as absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from secateur import graph
from secateur.export import stored, written
from secateur.graph import counts
from secateur.run.net import sizes

FLOAT = np.float32


def file(arrays: dict[str, Any]) -> bytes:
    model = onnx.ModelProto()
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a, FLOAT), k) for k, a in arrays.items())
    return bytes(model.SerializeToString())


W = np.array([[1, 2, 3], [4, 5, 0]], FLOAT)


def test_by_name_turned_and_both() -> None:
    found = stored.find(file({"w": W, "w.T": W.T, "v.T": W.T}), {"w": W, "v": W})
    assert [name for name, _ in found.copies] == ["w", "w", "v"]
    assert all(np.array_equal(a, W) for _, a in found.copies)
    assert (found.rearranged, found.absent) == ((), ())


def test_a_changed_second_copy_is_seen() -> None:
    other = W.copy()
    other[0, 0] = 9
    found = stored.find(file({"w": W, "w.T": other.T}), {"w": W})
    assert [np.array_equal(a, W) for _, a in found.copies] == [True, False]


def test_pieces_and_other_orders_are_rearranged_and_every_value_is_used_once() -> None:
    state = {"packed": W, "bias": np.array([7, 7], FLOAT)}
    pieces = {"a": W[1, ::-1][None], "b": np.concatenate([W[0], [7, 7]])}
    assert stored.find(file(pieces), state).rearranged == ("bias", "packed")
    assert stored.find(file(pieces), {**state, "more": np.array([7], FLOAT)}).absent == ("more",)
    pieces["b"][0] = np.nextafter(FLOAT(1), FLOAT(2))
    assert stored.find(file(pieces), state).absent == ("packed",)


def test_tied_parameters_share_the_one_initializer_and_zeros_need_none() -> None:
    found = stored.find(file({"tok": W}), {"tok": W, "out": W.copy(), "dead": np.zeros(3, FLOAT)})
    assert [name for name, _ in found.copies] == ["tok", "out"]
    assert (found.rearranged, found.absent) == (("dead",), ())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x + self.a(x, x, x, need_weights=False)[0])


class Products(nn.Module):
    """Parameters that a product or an einsum reads, and one that is normalised before use."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6, 5))
        self.n, self.fc = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bto,op->btp", x @ self.a, self.b)
        return self.fc(nn.functional.linear(h, self.n.weight / self.n.weight.norm(dim=1, keepdim=True), self.n.bias))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.fc = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.r(x)[0])


@pytest.mark.parametrize("make", [Attention, Products, Gated])
def test_networks_as_people_write_them(make: Any) -> None:
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(2, 5, 8)
    files = written.write(net, graph.trace(net, x), graph.settle(net, x))
    found = stored.find(files.onnx, files.arrays)
    assert found.absent == ()
    assert {n for n, _ in found.copies} | set(found.rearranged) == files.arrays.keys()
    assert all(np.array_equal(a, files.arrays[n]) for n, a in found.copies)
    one = max(files.arrays, key=lambda k: files.arrays[k].size)
    moved = {**files.arrays, one: files.arrays[one] + FLOAT(1e-3)}
    again = stored.find(files.onnx, moved)
    assert one in again.absent or any(n == one and not np.array_equal(a, moved[n]) for n, a in again.copies)


@pytest.mark.parametrize("make", [Attention, Products, Gated])
def test_one_function_counts_every_parameter_once(make: Any) -> None:
    net = make().eval()
    traced = graph.trace(net, torch.randn(2, 5, 8))
    rows, total = list(counts.weights(net, traced)), sizes(net, traced, lambda: 7)
    assert sorted(w.name for w in rows) == sorted(k for k, _ in net.named_parameters())
    matrices = [p for p in net.parameters() if p.ndim > 1]
    assert total["nnz"] == sum(w.nnz for w in rows if w.counted) == sum(int(p.count_nonzero()) for p in matrices)
    assert total["macs"] == sum(w.macs for w in rows)
    assert total["params"] == sum(p.numel() for p in net.parameters())
    assert {w.name for w in rows if w.left_out} == {x.name for x in traced.left_out}
