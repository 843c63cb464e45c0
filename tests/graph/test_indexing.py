"""A constant index: channels beside the axis it picks from go, those along it stay; the answers are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import shrink, trace


class Picks(nn.Module):
    """Two layers and what happens between them; rows 6, 1, 0 and a table of three rows that they pick from."""

    def __init__(self, between: Callable[[Picks, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 8), nn.Linear(8, 3), between
        self.register_buffer("order", torch.tensor([6, 1, 0]))
        self.register_buffer("mixed", torch.randperm(8))
        self.table = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)).relu())


def rows(net: Picks, x: Tensor) -> Tensor:
    return x[:, net.order.view(-1)]


def grid(net: Picks, x: Tensor) -> Tensor:
    return x[:, net.order.view(3, 1)].flatten(1, 2)


def selected(net: Picks, x: Tensor) -> Tensor:
    return torch.index_select(x, -2, net.order + 1 - 1)


def table(net: Picks, x: Tensor) -> Tensor:
    return x[:, :3] + net.table[net.order % 3].unsqueeze(0) + net.table[[1, 2, 0]]


def channels(net: Picks, x: Tensor) -> Tensor:
    return x[..., net.mixed]


def channels_selected(net: Picks, x: Tensor) -> Tensor:
    return x.index_select(2, net.mixed)


def by_the_input(net: Picks, x: Tensor) -> Tensor:
    return x[:, x[0, :, 0].argsort()]


def masked(net: Picks, x: Tensor) -> Tensor:
    return x[:, torch.tensor([True, False, True, False, True, False, False])]


def corners(net: Picks, x: Tensor) -> Tensor:
    return x[:, net.order, net.mixed[:3]].unsqueeze(1).expand(-1, 7, -1).repeat(1, 1, 3)[..., :8]


def traced(between: Callable[[Picks, Tensor], Tensor]) -> tuple[Picks, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Picks(between).eval(), torch.randn(2, 7, 4)


@pytest.mark.parametrize("between", [rows, grid, selected, table])
def test_channels_beside_the_picked_axis_go(between: Callable[[Picks, Tensor], Tensor]) -> None:
    net, x = traced(between)
    t = trace(net, x)
    (site,) = t.groups
    assert (site.name, site.shape) == ("first.weight.channels", (8,))
    assert ("table" in {m.param for m in site.removes}) == (between is table)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    for name in ("first.weight", "first.bias"):
        weights[name][2:5] = 0
    weights["table"][:, 2:5] = 0
    small, _ = shrink(net, t, weights)
    assert small.first.weight.shape == (5, 4)
    net.load_state_dict(weights | dict(net.named_buffers()))
    for batch in (x, torch.randn(3, 7, 4)):
        assert torch.allclose(small(batch), net(batch), atol=1e-6)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (channels, "index (forward) picks among them"),
        (channels_selected, "index_select (forward) picks among them"),
        (by_the_input, "no rule takes index (forward) apart"),
        (masked, "no rule takes index (forward) apart"),
        (corners, "no rule takes index (forward) apart"),
    ],
)
def test_what_an_index_counts_stays_and_is_told(between: Callable[[Picks, Tensor], Tensor], why: str) -> None:
    net, x = traced(between)
    t = trace(net, x)
    assert not t.groups
    assert ("first.weight", why) in {(h.name, h.why) for h in t.held}


def test_a_row_that_no_index_picks_holds_the_table_in_the_way() -> None:
    net, x = traced(lambda net, x: x[:, :3] + net.table[net.order % 2])
    assert not trace(net, x).groups
