"""Channels of one range before values are rounded: the same network, ranges by hand, and what is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur import graph
from secateur.constraints.uniform import Uniform
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.run import equalize
from secateur.terms import views


class Sum(nn.Module):
    """A residual sum behind a bias-free producer, two layers side by side, pools and a flatten: all of one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b, self.c = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(5, 4, 3, padding=1)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.body(x))
        x = nn.functional.max_pool2d(torch.cat([self.a(x), self.b(x)], 1), 2)
        return self.head(nn.functional.leaky_relu(self.c(x)).flatten(1))


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {k: p.detach().clone() for k, p in net.named_parameters()}


def equalized(net: nn.Module, x: Tensor) -> tuple[nn.Module, list[str], list[str]]:
    """The net after it, the groups that it scaled, those whose scale was kept by the proof."""
    traced = graph.trace(net, x)
    groups = graph.scalable(traced)
    made, kept = graph.rescaled(net, traced, equalize.scales(groups, weights(net)))
    return made, [g.name for g in groups if g.name not in kept], kept


def ranges(net: nn.Module, group: Any) -> tuple[Tensor, Tensor]:
    """The largest weight of each channel where it is made and where it is read, written from the definition."""
    found = []
    for members in (group.members, [m for m in group.removes if m.param in group.readers]):
        parts = []
        for m in members:
            w = net.get_parameter(m.param).detach().abs().movedim(m.axis, 0).flatten(1).amax(1)
            parts.append(w[list(m.index) if m.index else slice(None)].reshape(group.shape[0], m.repeat).amax(1))
        found.append(torch.stack(parts).amax(0))
    return found[0], found[1]


def test_two_layers_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[4.0, -2.0], [0.5, 1.0]]))
        net[0].bias.copy_(torch.tensor([2.0, 3.0]))
        net[2].weight.copy_(torch.tensor([[-1.0, 4.0]]))
    made, done, _ = equalized(net, torch.randn(3, 2).double())
    assert done == ["0.weight.channels"]
    assert made[0].weight.tolist() == [[2.0, -1.0], [1.0, 2.0]]  # s = sqrt(1/4), sqrt(4/1)
    assert made[0].bias.tolist() == [1.0, 6.0]
    assert made[2].weight.tolist() == [[-2.0, 2.0]]
    assert torch.equal(made[2].bias, net[2].bias)


def test_the_network_answers_as_before_and_every_channel_has_one_range() -> None:
    torch.manual_seed(0)
    net = Sum().double()
    with torch.no_grad():
        net.stem.weight *= torch.tensor([1e-2, 1.0, 10.0, 0.0]).view(-1, 1, 1, 1)
    x = torch.randn(5, 1, 6, 6).double()
    made, done, kept = equalized(net, x)
    assert kept == []
    assert len(done) == 4  # the sum's, the two halves of the concatenation, and what the flatten reads
    torch.testing.assert_close(made(x), net(x), rtol=1e-9, atol=1e-9)
    for group in graph.scalable(graph.trace(net, x)):
        rows, columns = ranges(made, group)
        torch.testing.assert_close(rows, columns, rtol=0.01, atol=0.0)
        assert not torch.equal(*ranges(net, group))


def test_what_does_not_scale_is_left_alone() -> None:
    """Behind a tanh the proof fails, behind a norm nothing is tried, a frozen layer and a depthwise one stay."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2)),
    ).eval()
    net[11].weight.requires_grad_(False)
    made, done, kept = equalized(net, torch.randn(2, 1, 8, 8))
    assert kept == ["0.weight.channels", "5.weight.channels"]
    assert done == ["14.weight.channels"]
    changed = [k for k, p in made.named_parameters() if not torch.equal(p, net.get_parameter(k))]
    assert changed == ["14.weight", "14.bias", "16.weight"]


def test_channels_of_other_ranges_are_rounded_with_less_error() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(200, 8)
    with torch.no_grad():
        for at in (0, 2):
            uneven = 4.0 ** torch.randn(16)
            net[at].weight.mul_(uneven[:, None])
            net[at].bias.mul_(uneven)
            net[at + 2].weight.div_(uneven)
        wanted = net(x)

        def lost(model: nn.Module) -> float:
            model = copy.deepcopy(model)
            for site in (s for s in graph.trace(model, x).sites if s.op == "linear"):
                w = model.get_parameter(site.name)
                w.copy_(Uniform().project(views.matrix(site, "oc", {site.name: w}), 6))
            return float((model(x) - wanted).square().mean() / wanted.square().mean())

        assert lost(equalized(net, x)[0]) < 0.1 * lost(net)


def recipe(**solver: Any) -> dict[str, Any]:
    return {
        "constrain": [{"where": "0", "with": ["topk", "codebook"], "level": {"nnz": 40, "entries": 4}}],
        "solver": {"name": "one_shot", "epochs": 1, **solver},
        "baselines": [],
        "bench": {"against": [], "seconds": 0.001},
    }


def small(act: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), act(), nn.Linear(12, 3))
    with torch.no_grad():
        net[0].weight[::2] *= 20.0
    return net


X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(X[i : i + 16], X[i : i + 16, :3].argmax(dim=1)) for i in range(0, 64, 16)]


def test_a_run_equalizes_says_so_and_meets_its_sets() -> None:
    """The reader is under no set and is written all the same."""
    asked = recipe(equalize=True, bias_correction=True, polish=0.0, snap=0.5)
    result = secateur.compress(small(), BATCHES, valid=BATCHES, recipe=asked, on_progress=False)
    (stage,) = (s for s in result.report["stages"] if s["name"] == "equalize")
    assert stage["equalized"] == ["0.weight.channels"]
    assert any("1 of 1 groups of channels were equalised" in n for n in result.report["notes"])
    values = result.model[0].weight.detach()
    assert int(values.count_nonzero()) <= 40
    assert len(values[values != 0].unique()) <= 4
    assert not [c for c in result.verify()["checks"] if c["passed"] is False]


def test_a_run_says_where_nothing_could_be_equalized() -> None:
    result = secateur.compress(small(nn.Tanh), BATCHES, valid=BATCHES, recipe=recipe(equalize=True), on_progress=False)
    assert any("0 of 1 groups" in n and "0.weight.channels kept their scale" in n for n in result.report["notes"])


def test_an_own_loop_equalizes_before_its_snap() -> None:
    net = small()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    asked = {**recipe(equalize=True, snap=0.5), "solver": {"name": "one_shot", "equalize": True, "snap": 0.5}}
    own = secateur.Compressor(net, asked, X[:2], optimizer=optimizer, total_steps=4)
    reader = net[2].weight.detach().clone()
    for step in range(4):
        assert torch.equal(net[2].weight, reader) == (step < 2), step
        nn.functional.cross_entropy(net(X), X[:, :3].argmax(1)).backward()
        optimizer.step()
        own.step()
    assert any("were equalised" in n for n in own.finalize().report["notes"])


def test_the_recipe_asks_for_it() -> None:
    assert not Recipe.from_dict({}).equalize
    with pytest.raises(UsageError, match=r"solver\.equalize: 1; true or false"):
        Recipe.from_dict({"solver": {"name": "one_shot", "equalize": 1}})
