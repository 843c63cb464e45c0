"""The small detector: its cells lie where its answers come from, and all its inner channels can go."""

from __future__ import annotations

import pytest
import torch

from secateur import zoo
from secateur.graph import trace
from secateur.graph.counts import held
from secateur.zoo.detection import average_precision, detection_loss, found
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


def test_average_precision_by_hand() -> None:
    """Two circles in one picture, three guesses: right, a second time the same, right; then a false one between."""
    middles, raw = cells(64, 64)[0], torch.full((320, 7), -20.0)
    raw[:, :4] = 2.0  # boxes of 2.127 strides to each side
    reach = float(torch.nn.functional.softplus(torch.tensor(2.0))) * 4
    guessed = [17, 18, 200]  # the first two overlap by more than half
    raw[guessed, 4] = torch.tensor([3.0, 2.0, 1.0])
    boxes = [[0.0, *(middles[c] - reach).tolist(), *(middles[c] + reach).tolist()] for c in (17, 200)]
    targets = torch.tensor([[*boxes, [-1.0] * 5]])
    assert [round(s, 3) for _, s, _ in found(raw)] == [0.953, 0.731]
    assert average_precision([raw], targets) == pytest.approx(1 / 3)  # of three classes one is there
    raw[100, 4] = 2.5  # a false one between them: precision 1, then 2/3 at the second
    assert average_precision([raw], targets) == pytest.approx((1 / 2 + 2 / 3 / 2) / 3)
    assert len(found(raw)) == 3
    loss = detection_loss(raw[None], targets)
    assert loss.isfinite()
    better = raw.clone()
    better[100, 4] = -20.0
    assert detection_loss(better[None], targets) < loss
