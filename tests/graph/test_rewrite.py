"""The smaller network computes what the masked one does, to rounding; and it is smaller."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.errors import FormatError, UnsupportedError
from secateur.graph import Traced, apply_surgery, shrink, trace
from secateur.graph.calling import arguments

from .nets import HardView, LeNet, Mlp, PadLayers, ResNet, Tied, TwoInputs, Vgg, all_nets, more_nets, shake


def flat(outputs: object) -> Tensor:
    return torch.cat([t.reshape(t.shape[0], -1) for t in torch.utils._pytree.tree_leaves(outputs)], 1)


def answer(net: nn.Module, example: object) -> Tensor:
    args, kwargs = arguments(example)
    with torch.no_grad():
        return flat(net.eval()(*args, **kwargs))


def masked(net: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    out = copy.deepcopy(net)
    with torch.no_grad():
        for n, p in out.named_parameters():
            p.copy_(weights[n])
    return out


def prune(net: nn.Module, t: Traced, density: float, rows: float, seed: int, companions: bool) -> dict[str, Tensor]:
    """Random zeros, and whole channels of coupled groups; with their norms and biases if `companions`."""
    g = torch.Generator().manual_seed(seed)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    for n in w:
        if w[n].dim() > 1:
            w[n] *= torch.rand(w[n].shape, generator=g) < density
    for site in t.groups:
        dead = torch.rand(site.shape[0], generator=g) > rows
        for m in site.members:
            index = torch.tensor(m.index if m.index is not None else range(site.shape[0] * m.repeat))
            w[m.param].index_fill_(m.axis, index[dead.repeat_interleave(m.repeat)], 0.0)
    if companions:
        for n, mask in t.kept(w).items():
            w[n] = w[n] * mask
    return w


def check(net: nn.Module, example: Any, weights: dict[str, Tensor], t: Traced) -> tuple[nn.Module, dict[str, Any]]:
    before = copy.deepcopy(net.state_dict())
    small, surgery = shrink(net, t, weights)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    full = masked(net, weights)
    more = torch.utils._pytree.tree_map(_like, example)
    for x in (example, more):
        # float32 against float32: a few hundred roundings of the largest activation at most.
        want, got = answer(full.double(), _double(x)), answer(copy.deepcopy(small).double(), _double(x))
        assert torch.allclose(want, got, rtol=0, atol=2e-6 * (1 + float(want.abs().max())))
    assert type(small) is type(net)
    others = {type(m) for m in net.modules()} - {nn.MultiheadAttention}  # with fewer heads it is a graph of calls
    assert others <= {type(m) for m in small.modules()}
    assert "attention" in surgery or {type(m) for m in small.modules()} == {type(m) for m in net.modules()}
    again = apply_surgery(net, json.loads(json.dumps(surgery)))
    again.load_state_dict(small.state_dict())
    assert torch.equal(answer(again, example), answer(small, example))
    assert sum(int((p != 0).sum()) for p in small.parameters()) <= sum(int((w != 0).sum()) for w in weights.values())
    # Purification is finished: nothing in the result is without effect, apart from channels that keep a layer alive.
    return small, surgery


def _double(x: object) -> object:
    return torch.utils._pytree.tree_map(lambda t: t.double() if t.is_floating_point() else t, x)


def _like(x: Tensor) -> Tensor:
    """Other values, and another batch where there is one."""
    if not x.is_floating_point():
        return x.flip(0)
    return torch.randn(x.shape if x.dim() == 3 and x.shape[0] == 2 and x.shape[1] == 5 else (5, *x.shape[1:]))


@pytest.mark.parametrize("name", [*all_nets(), *more_nets()])
@pytest.mark.parametrize(("density", "rows", "companions"), [(0.3, 0.7, False), (0.1, 1.0, False), (1.0, 0.5, True)])
def test_shrunk_equals_masked(name: str, density: float, rows: float, companions: bool) -> None:
    torch.manual_seed(1)
    net, example = (all_nets() | more_nets())[name]
    t = trace(net, example)
    check(net, example, prune(net, t, density, rows, 7, companions), t)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_nets_shrink_exactly(data: st.DataObject) -> None:
    """Random stacks of layers with random activations, widths, shortcuts and pruning."""
    seed = data.draw(st.integers(0, 10**6))
    torch.manual_seed(seed)
    net = _random_net(data)
    shake(net)
    example = torch.randn(2, 2, 7, 7)
    t = trace(net, example)
    density, rows = data.draw(st.sampled_from([0.05, 0.2, 0.6, 1.0])), data.draw(st.sampled_from([0.3, 0.7, 1.0]))
    check(net, example, prune(net, t, density, rows, seed, data.draw(st.booleans())), t)


class _Random(nn.Module):
    def __init__(self, layers: list[nn.Module], skips: list[bool], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.skips, self.head = nn.ModuleList(layers), skips, head

    def forward(self, x: Tensor) -> Tensor:
        for layer, skip in zip(self.layers, self.skips, strict=True):
            y = layer(x)
            x = (
                y + x
                if skip and y.shape == x.shape
                else torch.cat((x, y), 1)
                if skip and y.shape[2:] == x.shape[2:]
                else y
            )
        return self.head(x.flatten(1))


def _random_net(data: st.DataObject) -> nn.Module:
    acts = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Identity]
    layers, skips, n = [], [], 2
    x = torch.randn(2, 2, 7, 7)
    probe = _Random([], [], nn.Identity())
    for _ in range(data.draw(st.integers(1, 4))):
        width, k, pad = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([1, 3])), data.draw(st.booleans())
        if x.shape[2] < k:
            k = 1
        depthwise = data.draw(st.booleans()) and data.draw(st.booleans())
        width = n if depthwise else width
        parts: list[nn.Module] = [
            nn.Conv2d(
                n, width, k, padding=k // 2 if pad else 0, bias=data.draw(st.booleans()), groups=n if depthwise else 1
            )
        ]
        if data.draw(st.booleans()):
            parts.append(nn.BatchNorm2d(width))
        parts.append(data.draw(st.sampled_from(acts))())
        if x.shape[2] > 4 and data.draw(st.booleans()):
            parts.append(data.draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])))
        layers.append(nn.Sequential(*parts))
        skips.append(data.draw(st.booleans()))
        probe = _Random(layers, skips, nn.Identity()).eval()
        x = x.new_zeros(2, 2, 7, 7)
        for layer, skip in zip(layers, skips, strict=True):
            y = layer.eval()(x)
            x = (
                y + x
                if skip and y.shape == x.shape
                else torch.cat((x, y), 1)
                if skip and y.shape[2:] == x.shape[2:]
                else y
            )
        n = x.shape[1]
    size = probe(torch.zeros(2, 2, 7, 7)).shape[1]
    head = nn.Sequential(nn.Linear(size, 6, bias=data.draw(st.booleans())), nn.Tanh(), nn.Linear(6, 3))
    return _Random(layers, skips, head)


def test_a_dead_channel_leaves_every_tensor_of_a_chain() -> None:
    net = LeNet(wide=False)
    t = trace(net, torch.randn(2, 1, 28, 28))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["conv2.weight"][1] = 0
    w["fc2.weight"][:, 4] = 0
    small, surgery = check(net, torch.randn(2, 1, 28, 28), w, t)
    assert small.conv2.weight.shape == (4, 4, 5, 5)
    assert small.conv2.out_channels == 4
    assert (small.fc1.in_features, small.fc1.out_features) == (64, 8)
    assert small.fc1.weight.shape == (8, 64)
    assert small.fc2.weight.shape == (10, 8)
    keep = {(e["tensor"], e["axis"]): e["keep"] for e in surgery["edits"]}
    assert keep["conv2.weight", 0] == [0, 2, 3, 4]
    assert keep["fc1.weight", 1] == [i for i in range(80) if not 16 <= i < 32]


def test_a_constant_unit_goes_into_a_bias_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    w = {
        "0.weight": torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        "0.bias": torch.tensor([0.5, 0.25]),
        "2.weight": torch.tensor([[3.0, 4.0]]),
        "2.bias": torch.tensor([1.0]),
    }
    small, _ = shrink(net, trace(net, torch.randn(1, 2)), w)
    assert small[0].weight.tolist() == [[1.0, 2.0]]
    assert small[2].weight.tolist() == [[3.0]]
    assert small[2].bias.item() == pytest.approx(1.0 + 4.0 * torch.tanh(torch.tensor(0.25)).item())


def test_a_layer_without_bias_gets_one() -> None:
    net = Mlp()
    t = trace(net, torch.randn(2, 6))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["body.0.weight"][3] = 0
    small, surgery = check(net, torch.randn(2, 6), w, t)
    assert small.body[2].bias is not None
    assert surgery["biases"] == {"body.2.bias": 8}


def test_constants_that_zero_padding_cuts_off_stay() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Sigmoid(), nn.Conv2d(3, 2, 3, padding=1), nn.Flatten())
    x = torch.randn(2, 1, 6, 6)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["0.weight"][1] = 0
    small, _ = check(net, x, w, t)
    assert small[0].out_channels == 3
    w["2.weight"][:, 1] = 0
    small, _ = check(net, x, w, t)
    assert small[0].out_channels == 2


def test_residual_channels_go_only_when_all_agree() -> None:
    net = ResNet(n=1, width=4)
    shake(net)
    x = torch.randn(2, 3, 8, 8)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["conv.weight"][2] = 0
    w["bn.bias"][2] = 0
    w["bn.weight"][2] = 0
    small, _ = check(net, x, w, t)
    assert small.conv.out_channels == 4  # the other producers of the stream still use channel 2
    group = t.groups[0]
    for m in group.members:
        row = 2 if m.index is None else m.index[2]
        w[m.param][row] = 0
    w = {n: v * t.kept(w).get(n, torch.ones(())) for n, v in w.items()}
    small, _ = check(net, x, w, t)
    assert small.conv.out_channels == 3
    assert small.blocks[1].conv2.out_channels == 7
    assert small.blocks[1].bn2.num_features == 7
    assert small.linear.in_features == 15


def test_padding_layers_shrink_with_their_channels() -> None:
    net = PadLayers(n=1, width=4)
    shake(net)
    x = torch.randn(2, 3, 8, 8)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    for name in ("blocks.1.conv2.weight", "blocks.2.conv2.weight"):
        w[name][0 if "1" in name else 4] = 0  # the stream's channel 0 of stage 2 is number 4 of stage 3
    w = {n: v * t.kept(w).get(n, torch.ones(())) for n, v in w.items()}
    small, surgery = check(net, x, w, t)
    assert small.blocks[1].pad.padding == (0, 0, 0, 0, 1, 2)
    assert surgery["pads"] == [{"module": "blocks.1.pad", "side": 4, "less": 1}]
    assert small.blocks[1].conv2.out_channels == 7


def test_sizes_written_into_the_code_keep_their_channels_and_spare_the_others() -> None:
    net = HardView(wide=False)
    x = torch.randn(2, 1, 28, 28)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["conv1.weight"][0] = 0
    w["conv2.weight"][2] = 0
    w["fc1.weight"][5] = 0
    small, _ = check(net, x, w, t)
    assert small.conv1.out_channels == 3
    assert small.conv2.out_channels == 5  # x.view(-1, 80)
    assert small.fc1.out_features == 8
    assert not small.conv2.bias[2]
    assert not small.fc1.weight[:, 32:48].any()


def test_nothing_left_keeps_one_channel_a_layer() -> None:
    net = Vgg()
    x = torch.randn(2, 3, 16, 16)
    w = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    w["head.bias"] += 0.5
    small, _ = check(net, x, w, trace(net, x))
    assert small.features[0].weight.shape == (1, 3, 3, 3)
    assert answer(small, x).eq(0.5).all()


def test_tied_weights_stay_tied() -> None:
    net = Tied()
    t = trace(net, torch.randn(2, 6))
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["a.weight"][:, 1] = 0
    small, _ = check(net, torch.randn(2, 6), w, t)
    assert small.a.weight is small.b.weight


def test_modes_and_gradients_are_kept() -> None:
    net = Vgg().train()
    net.features[0].weight.requires_grad_(False)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["features.4.weight"][0] = 0
    small, _ = shrink(net, trace(net, torch.randn(2, 3, 16, 16)), w)
    assert small.training
    assert not small.features[0].weight.requires_grad
    assert small.features[4].weight.requires_grad


def test_two_inputs_shrink() -> None:
    net = TwoInputs()
    example = {"image": torch.randn(2, 1, 6, 6), "vector": torch.randn(2, 5)}
    t = trace(net, example)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["image.3.weight"][2] = w["vector.weight"][2] = 0
    small, _ = check(net, example, w, t)
    assert small.vector.out_features == small.image[3].out_features == 6


class _Counts(nn.Module):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return self.a(x) * self.calls


def test_a_net_with_hidden_state_is_refused() -> None:
    net = _Counts()
    with pytest.raises(UnsupportedError, match="keeps state"):
        shrink(net, trace(net, torch.randn(2, 3)))


@pytest.mark.parametrize(
    "edit",
    [
        {"version": 4},
        {"edits": [{"tensor": "nope", "axis": 0, "size": 5, "keep": [0]}]},
        {"edits": [{"tensor": "conv2.weight", "axis": 0, "size": 6, "keep": [0]}]},
        {"edits": [{"tensor": "conv2.weight", "axis": 4, "size": 5, "keep": [0]}]},
        {"edits": [{"tensor": "conv2.weight", "axis": 0, "size": 5, "keep": [7]}]},
        {"edits": [{"tensor": "conv2.weight", "axis": 0, "size": 5, "keep": []}]},
        {"biases": {"conv9.bias": 3}},
        {"pads": [{"module": "conv1", "side": 0, "less": 1}]},
        {"edits": [{"tensor": "conv2.weight"}]},
        {"edits": [3]},
        {"edits": {"a": 1}},
        {"edits": [{"tensor": "conv2.weight", "axis": 0, "size": 5, "keep": 3}]},
        {"biases": ["fc1.bias"]},
        {"sizes": [{"module": "conv1", "attribute": "num_groups", "less": 1}]},
        {"sizes": [{"module": "conv1", "attribute": "out_channels", "less": 1}]},
        {"sizes": [{"module": "gone", "attribute": "num_groups", "less": 1}]},
    ],
)
def test_a_record_that_does_not_fit_is_refused(edit: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="surgery"):
        apply_surgery(LeNet(wide=False), {"version": 1, **edit})


def test_padding_that_is_not_there_cannot_be_taken() -> None:
    pads = [{"module": "blocks.1.pad", "side": 4, "less": 3}]
    with pytest.raises(FormatError, match="has no 3 to give"):
        apply_surgery(PadLayers(), {"version": 1, "pads": pads})


def test_a_norm_keeps_a_group_and_counts_the_others_down() -> None:
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    x = torch.randn(2, 2, 3, 3)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        w[name][[2, 3, 5]] = 0  # all of the second group, half of the third
    small, surgery = check(net, x, w, t)
    assert small[0].out_channels == small[1].num_channels == 6
    assert small[1].num_groups == 3
    assert surgery["sizes"] == [{"module": "1", "attribute": "num_groups", "less": 1}]
    with pytest.raises(FormatError, match="num_groups 4, 4 less is not possible"):
        apply_surgery(net, {"version": 1, "sizes": [{"module": "1", "attribute": "num_groups", "less": 4}]})


def test_a_norm_without_parameters_is_told_its_size() -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.InstanceNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 2, 1)).eval()
    x = torch.randn(2, 2, 4, 4)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["0.weight"][[1, 4]] = 0
    small, _ = check(net, x, w, trace(net, x))
    assert (small[1].num_features, small[2].num_parameters, small[3].in_channels) == (4, 4, 4)


def test_places_of_grouped_convolutions_go_together() -> None:
    """Of three groups of two channels, what one group loses alone stays; a place that all lose goes."""
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.Flatten(), nn.Linear(36, 2))
    x = torch.randn(2, 2, 4, 4)
    t = trace(net, x)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["0.weight"][[1, 3, 5, 0]] = 0
    w["0.bias"][[1, 3, 5, 0]] = 0
    w["2.weight"][[2, 5, 8, 3]] = 0
    small, _ = check(net, x, w, t)
    assert small[0].out_channels == 3
    assert small[2].weight.shape == (6, 1, 3, 3)
    assert (small[2].in_channels, small[2].out_channels, small[2].groups) == (3, 6, 3)


def test_a_learned_scale_goes_with_its_channel() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 5, 1), nn.Linear(5, 2)
            self.scale, self.table = nn.Parameter(torch.rand(1, 5, 1, 1) + 1), nn.Parameter(torch.rand(5, 5) + 1)
            self.place = nn.Parameter(torch.randn(5, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x)) * self.scale + self.place
            return self.b(y.mean((2, 3))) + self.table.sum()

    net, x = Scaled(), torch.randn(2, 2, 4, 4)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    w["a.weight"][3] = 0
    t = trace(net, x)
    kept = t.kept(w)
    assert kept.keys() == {"a.bias", "scale", "place"}
    assert not kept["place"][3].any()
    small, _ = check(net, x, {n: v * kept.get(n, torch.ones(())) for n, v in w.items()}, t)
    assert small.scale.shape == (1, 4, 1, 1)
    assert small.place.shape == (4, 4, 4)
    assert small.table.shape == (5, 5)
