"""The small detector: its cells lie where its answers come from, and all its inner channels can go."""

from __future__ import annotations

import torch

from secateur import zoo
from secateur.graph import trace
from secateur.graph.counts import held
from secateur.zoo.detector import cells


def test_cells_belong_to_answers() -> None:
    """A change of one pixel far from everything else moves the fine cell that holds it most."""
    net = zoo.shape_detector(0.5).eval()
    middles, strides = cells(64, 64)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 64, 64)).shape == (2, len(middles), 7)
        assert len(middles) == len(strides) == 16 * 16 + 8 * 8
        x = torch.zeros(1, 3, 64, 64)
        before = net(x)
        x[..., 40:44, 12:16] = 30.0
        moved = (net(x) - before).abs().sum(2)[0]
    for stride in (4, 8):
        own = (strides == stride).nonzero().flatten()
        at = middles[own[moved[own].argmax()]]
        assert (at - torch.tensor([14.0, 42.0])).abs().max() <= 3 * stride


def test_all_inner_channels_can_go() -> None:
    traced = trace(zoo.shape_detector(0.5), torch.zeros(2, 3, 64, 64))
    assert held(traced) == []
    halves = next(g for g in traced.groups if g.members[0].param == "neck.first.0.weight")
    assert halves.members[0].repeat == 2  # a channel of the one half, and that at its place in the other
