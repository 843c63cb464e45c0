"""Effective weights against brute force: change one weight, look at the outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import trace
from secateur.graph.calling import arguments

from .nets import LeNet, all_nets, shake


def smooth(net: nn.Module) -> nn.Module:
    """No ReLU that hides an influence by chance."""
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.Softplus())
    return net


def prune(net: nn.Module, density: float, seed: int) -> dict[str, Tensor]:
    """Random zeros in all weights with two axes or more, and in some norms; written into the net."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            keep = torch.rand(p.shape, generator=g) < (density if p.dim() > 1 else 0.8)
            p.mul_(keep)
    return {n: p.detach().clone() for n, p in net.named_parameters()}


def flat(outputs: object) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return torch.cat([t.reshape(t.shape[0], -1) for t in leaves], 1)


@pytest.mark.parametrize("name", ["mlp", "concat", "depthwise", "two_inputs", "conv1d", "vgg", "resnet", "tied"])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_ineffective_weight_only_moves_constants(name: str, seed: int) -> None:
    """Changing it shifts all outputs by the same amount for every input (what a bias would do), or not at all."""
    torch.manual_seed(seed)
    net, example = all_nets()[name]
    net = smooth(net).double().eval()
    t = trace(net, torch.utils._pytree.tree_map(lambda x: x.double(), example))
    weights = prune(net, 0.15, seed)
    effective = t.effective(weights)
    args, kwargs = arguments(example)
    inputs = [torch.utils._pytree.tree_map(lambda x: torch.randn_like(x).double(), (args, kwargs)) for _ in range(3)]
    g = torch.Generator().manual_seed(seed)
    checked = 0
    for s in t.sites:
        if s.op not in ("conv", "linear"):
            continue
        p = dict(net.named_parameters())[s.name]
        ineffective = (~effective[s.name]).flatten().nonzero().flatten()
        for i in ineffective[torch.randperm(len(ineffective), generator=g)[:6]].tolist():
            with torch.no_grad():
                before = [flat(net(*a, **k)) for a, k in inputs]
                old = p.view(-1)[i].item()
                p.view(-1)[i] = old + 0.7
                after = [flat(net(*a, **k)) for a, k in inputs]
                p.view(-1)[i] = old
            # Whatever moves must come from constants: units that still depend on the input give a rank of variation.
            # Downstream non-linearities may bend it, so the sharp check is on weights that read a live unit.
            if _reads_constant(t, weights, s.name, i):
                continue
            checked += 1
            assert all(torch.allclose(x, y, rtol=0, atol=1e-12) for x, y in zip(before, after, strict=True)), (
                s.name,
                i,
            )
    assert checked


def _reads_constant(t: object, weights: dict[str, Tensor], name: str, i: int) -> bool:
    """Does the unit that this entry reads stand still for every input?"""
    flow = t.flow(weights)  # type: ignore[attr-defined]
    for n in flow.program.calls:
        if any(flow.program.params.get(a.name) == name for a in n.all_input_nodes):
            live = flow.live[n.args[0]]
            site = weights[name]
            index = torch.unravel_index(torch.tensor(i), site.shape)
            axis = 1 if "conv" in str(n.target) else live.dim() - 1
            groups = live.shape[axis] // site.shape[1]
            row = int(index[1]) + (int(index[0]) * groups // site.shape[0]) * site.shape[1]
            if bool(live.movedim(axis, 0)[row].any()):
                return False
    return True


@pytest.mark.parametrize("name", ["mlp", "concat", "conv1d", "two_inputs"])
def test_an_effective_weight_moves_the_outputs(name: str) -> None:
    torch.manual_seed(3)
    net, example = all_nets()[name]
    net = smooth(net).double().eval()
    example = torch.utils._pytree.tree_map(lambda x: torch.randn(16, *x.shape[1:]).double(), example)
    t = trace(net, example)
    weights = prune(net, 0.3, 3)
    args, kwargs = arguments(example)
    checked = 0
    with torch.no_grad():
        before = flat(net(*args, **kwargs))
        for s in t.sites:
            if s.op not in ("conv", "linear"):
                continue
            p = dict(net.named_parameters())[s.name]
            for i in t.effective(weights)[s.name].flatten().nonzero().flatten()[:8].tolist():
                old = p.view(-1)[i].item()
                p.view(-1)[i] = old + 0.5
                moved = (flat(net(*args, **kwargs)) - before).abs().max()
                p.view(-1)[i] = old
                checked += 1
                assert moved > 1e-12, (s.name, i)
    assert checked


def test_dead_ends_and_sourceless_units_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    t = trace(net, torch.randn(1, 2))
    w = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    w["0.weight"] = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])  # unit 1 has no source
    w["2.weight"] = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    w["4.weight"] = torch.tensor([[1.0, 0.0]])  # unit 1 of layer 2 has no reader
    e = t.effective(w)
    assert e["0.weight"].tolist() == [[True, True], [True, True], [False, False]]  # unit 2 feeds only the dead unit
    assert e["2.weight"].tolist() == [[True, False, True], [False, False, False]]
    assert e["4.weight"].tolist() == [[True, True]]
    assert e["0.bias"].tolist() == [True, False, False]  # the constant unit's bias goes into its reader's
    assert e["2.bias"].tolist() == [True, False]


def test_a_norm_with_zero_gamma_stops_influence() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten())
    shake(net)
    t = trace(net, torch.randn(1, 1, 8, 8))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["1.weight"][0] = 0
    e = t.effective(w)
    assert not e["0.weight"][0].any()
    assert e["0.weight"][1].all()
    assert not e["3.weight"][:, 0].any()  # unpadded: the constant goes into the bias
    assert e["1.weight"].tolist() == [True, True]


def test_a_nonzero_constant_under_zero_padding_is_kept() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sigmoid(), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten())
    t = trace(net, torch.randn(1, 1, 8, 8))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["0.weight"][0] = 0
    e = t.effective(w)
    assert e["2.weight"][:, 0].all()  # sigmoid(bias) != 0 and the border sees fewer taps
    relu = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten())
    w["0.bias"][0] = -1.0
    assert not trace(relu, torch.randn(1, 1, 8, 8)).effective(w)["2.weight"][:, 0].any()  # relu(-1) = 0


def test_full_density_is_all_effective_and_quick() -> None:
    net = LeNet()
    e = trace(net, torch.randn(1, 1, 28, 28)).effective(dict(net.named_parameters()))
    assert all(bool(v.all()) for v in e.values())
