"""Graphs kept without their weights: filled with another net's they are what an export gives, or they are not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from secateur import graph
from secateur.export import kept, written


class Sums(nn.Module):
    """A weight that is computed from another one before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, torch.softmax(self.w, 1))


def net(width: int = 8) -> nn.Module:
    layers = [nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * 36, 5)).eval()


def answer(model: nn.Module, x: Tensor) -> tuple[bytes, int]:
    """What is handed out, and how often the export was asked."""
    calls = []
    example = graph.settle(model, x)

    def export() -> bytes:
        calls.append(1)
        return written.exported_bytes(model, example)

    return kept.exported(model, graph.trace(model, example), example, export), len(calls)


def test_a_kept_graph_with_other_weights_is_what_their_export_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    x = torch.randn(2, 3, 8, 8)
    assert answer(net(), x)[1] == 1
    (file,) = (tmp_path / "graphs").iterdir()
    other = net()
    found, exports = answer(other, x)
    assert exports == 0
    assert found == written.exported_bytes(other, graph.settle(other, x))
    assert len(found) > len(file.read_bytes()) + 4 * 8 * 36 * 5  # no weights in it

    assert answer(net(9), x)[1] == 1  # another net
    file.write_bytes(b"damaged")
    assert answer(net(), x)[1] == 1


def test_a_graph_that_may_hold_what_was_computed_from_weights_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    first, second = Sums().eval(), Sums().eval()
    x = torch.randn(2, 6)
    for model in (first, second):
        found, _ = answer(model, x)
        assert found == written.exported_bytes(model, graph.settle(model, x))
