from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from secateur.errors import ConstraintError, UnsupportedError, UsageError
from secateur.graph import trace
from secateur.terms import views

from .nets import Concat, Depthwise, LeNet, ResNet, Tied, TwoInputs, all_nets, more_nets


def test_sites_of_a_chain_in_network_order() -> None:
    t = trace(LeNet(), torch.randn(3, 1, 28, 28))
    assert [s.name for s in t.sites] == [
        f"{n}.{k}" for n in ("conv1", "conv2", "fc1", "fc2") for k in ("weight", "bias")
    ]
    assert [s.op for s in t.sites] == ["conv", "bias", "conv", "bias", "linear", "bias", "linear", "bias"]
    assert t.macs == {"conv1.weight": 288_000, "conv2.weight": 1_600_000, "fc1.weight": 400_000, "fc2.weight": 5_000}
    assert [s.name for s in t.sites if s.last] == ["fc2.weight", "fc2.bias"]


def test_groups_of_a_chain_name_what_goes_with_a_channel() -> None:
    groups = {g.name: g for g in trace(LeNet(), torch.randn(1, 1, 28, 28)).groups}
    assert list(groups) == ["conv1.weight.channels", "conv2.weight.channels", "fc1.weight.channels"]
    conv2 = groups["conv2.weight.channels"]
    assert conv2.shape == (50,)
    assert [(m.param, m.axis, m.repeat, m.index) for m in conv2.removes] == [
        ("conv2.bias", 0, 1, None),
        ("fc1.weight", 1, 16, None),
    ]


def test_residual_stages_share_channels_where_the_shortcut_pads() -> None:
    t = trace(ResNet(n=1, width=4), torch.randn(1, 3, 8, 8))
    first = t.groups[0]
    assert first.name == "conv.weight.channels"
    producers = {m.param: m.index for m in first.members}
    assert producers["blocks.0.conv2.weight"] is None
    assert producers["blocks.1.conv2.weight"] == (2, 3, 4, 5)  # padded by 2 on each side
    assert producers["blocks.2.conv2.weight"] == (6, 7, 8, 9)
    w = {n: torch.randn(s) for n, s in t.program.shapes.items()}
    m = views.matrix(first, "channels", w)
    assert m.shape == views.shape(first, "channels", w) == (4, 3 * 9 + 4 * 9 + 8 * 9 + 16 * 9)
    back = views.write(first, "channels", w, m * 0)
    assert not back["blocks.1.conv2.weight"][2:6].any()
    assert torch.equal(back["blocks.1.conv2.weight"][:2], w["blocks.1.conv2.weight"][:2])


def test_concat_and_permuted_flatten_keep_index_lists() -> None:
    groups = {g.name: g for g in trace(Concat(), torch.randn(1, 2, 6, 6)).groups}
    assert [m.index for m in groups["a.weight.channels"].removes if m.param == "c.weight"] == [(0, 1, 2)]
    assert [m.index for m in groups["b.weight.channels"].removes if m.param == "c.weight"] == [(3, 4, 5, 6, 7)]
    last = next(m for m in groups["c.weight.channels"].removes if m.param == "d.weight")
    assert last.repeat == 36
    assert last.index is not None
    assert last.index[:3] == (0, 4, 8)  # channels last: stride 4


def test_depthwise_channels_go_together() -> None:
    groups = trace(Depthwise(), torch.randn(1, 2, 7, 7)).groups
    assert [m.param for m in groups[0].members] == ["up.weight", "dw.weight"]
    assert {m.param for m in groups[0].removes} >= {"n1.weight", "n2.running_var", "dw.bias", "down.weight"}


def test_dict_inputs_and_several_outputs() -> None:
    t = trace(TwoInputs(), {"image": torch.randn(4, 1, 6, 6), "vector": torch.randn(4, 5)})
    assert {s.name for s in t.sites if s.last} == {"mean.weight", "mean.bias", "scale.weight", "scale.bias"}
    added = next(g for g in t.groups if g.name == "image.3.weight.channels")
    assert [m.param for m in added.members] == ["image.3.weight", "vector.weight"]


def test_tied_weights_are_one_site_and_unused_ones_none() -> None:
    t = trace(Tied(), torch.randn(2, 6))
    names = [s.name for s in t.sites]
    assert "b.weight" not in names
    assert "unused" not in names
    assert next(s for s in t.sites if s.name == "a.weight").positions == 2
    assert not t.effective({})["unused"].any()
    assert t.groups == ()  # its rows are coupled to its own columns, which are the model's input


@pytest.mark.parametrize("name", list(all_nets()))
def test_the_callers_model_and_random_state_are_untouched(name: str) -> None:
    net, example = all_nets()[name]
    net.train()
    next(net.children()).eval()
    modes = [m.training for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    t = trace(net, example)
    _ = t.groups
    t.effective(dict(net.named_parameters()))
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_what_nobody_describes_is_left_alone_and_named() -> None:
    net, example = more_nets()["odd"]
    t = trace(net, example)
    assert {s.op for s in t.sites if s.name.startswith("norm")} == {"norm"}
    assert [g.name for g in t.groups] == ["grouped.weight.channels", "up.weight.channels", "head.weight.channels"]
    assert {(h.name, h.n, h.of, h.why) for h in t.held} == {
        # Its norm takes halves as a whole, the layer that reads them the same places of both halves.
        ("a.weight", 8, 8, "those of a.weight hang together, removing one would remove all"),
        ("tail.weight", 5, 5, "no rule takes cumsum (forward) apart"),
        ("last.weight", 2, 2, "the model answers with them"),
    }
    up = next(g for g in t.groups if g.name.startswith("up"))
    assert [(m.param, m.axis) for m in up.members] == [("up.weight", 1)]
    assert [m.param for m in up.removes] == ["up.bias", "act.weight", "head.weight", "scale"]
    attention = trace(*more_nets()["attention"])
    assert next(s for s in attention.sites if s.name == "embed.weight").op == "embedding"
    assert [g.name for g in attention.groups] == [
        "layer.self_attn.in_proj_weight.heads",
        "layer.linear1.weight.channels",
    ]
    assert not trace(*more_nets()["unbatched"]).effective({})["a.bias"].logical_not().any()


def test_gates_couple_what_they_multiply() -> None:
    groups = trace(*more_nets()["gate"]).groups
    assert [m.param for m in groups[0].members] == ["a.weight", "s2.weight"]
    halves = next(m for g in groups for m in g.members if m.param == "b.weight")
    assert (halves.repeat, halves.index) == (2, (0, 2, 1, 3))


def test_companions_of_a_removed_channel() -> None:
    """Norms and biases go with it; a channel made of two rows goes when both are zero."""
    net = Depthwise()
    t = trace(net, torch.randn(1, 2, 7, 7))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    assert t.kept(w) == {}
    w["up.weight"][1] = 0
    assert t.kept(w) == {}  # its depthwise row is still there
    w["dw.weight"][1] = 0
    kept = t.kept(w)
    assert set(kept) == {"n1.weight", "n1.bias", "dw.bias", "n2.weight", "n2.bias"}
    assert all(m.tolist() == [True, False, True, True, True, True] for m in kept.values())

    gate, example = more_nets()["gate"]
    t = trace(gate, example)
    w = {n: p.detach().clone() for n, p in gate.named_parameters()}
    w["b.weight"][0] = 0
    assert t.kept(w) == {}
    w["b.weight"][2] = 0
    assert t.kept(w)["b.bias"].tolist() == [False, True, False, True]


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.a(x).sum() > 0:
            return x
        return self.a(x)


def test_a_branch_on_values_is_refused_with_its_place(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match=r"branches on a tensor's value \(test_tracing.py:\d+, in forward: if"):
        trace(_Branches(), torch.randn(2, 3))
    out, err = capfd.readouterr()
    assert out == err == ""


def test_wrong_example_inputs_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"LeNet does not run on example_inputs \[2, 3\].*nets.py:"):
        trace(LeNet(), torch.randn(2, 3))
    with pytest.raises(UsageError, match="hold no tensor"):
        trace(LeNet(), ())


def test_nan_weights_are_refused() -> None:
    net = LeNet()
    with torch.no_grad():
        net.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConstraintError, match=r"conv2.weight .* 1 values are NaN"):
        trace(net, torch.randn(1, 1, 28, 28))


def test_a_net_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no weight found"):
        trace(nn.ReLU(), torch.randn(2, 3))
