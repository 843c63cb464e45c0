"""Heads of attention and units of recurrent layers: found in the calls, removed, equal to the zero-masked net."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from secateur.errors import FormatError
from secateur.graph import Traced, apply_surgery, shrink, stays, trace
from secateur.types import Site

DIM, HEAD = 12, 3


class Attention(nn.Module):
    """Self-attention in the ways people write it; `kv` key/value heads for four query heads."""

    def __init__(self, fused: bool = True, how: str = "matmul", kv: int = 4, literal: str = "attribute") -> None:
        super().__init__()
        self.heads, self.kv, self.how, self.literal = 4, kv, how, literal
        wide, less = 4 * HEAD, kv * HEAD
        self.qkv = nn.Linear(DIM, wide + 2 * less) if fused else None
        if not fused:
            self.a, self.b, self.c = nn.Linear(DIM, wide), nn.Linear(DIM, less), nn.Linear(DIM, less, bias=False)
        self.out = nn.Linear(wide, DIM)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        if self.qkv is not None:
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q = self.a(x).view(b, t, self.heads, HEAD).transpose(1, 2)
            k, v = (m(x).view(b, t, self.kv, HEAD).transpose(1, 2) for m in (self.b, self.c))
        if self.how == "torch":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv < self.heads)
        else:
            k, v = (z.repeat_interleave(self.heads // self.kv, 1) for z in (k, v))
            hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
            if self.how == "einsum":
                weights = (torch.einsum("bhid,bhjd->bhij", q, k) * HEAD**-0.5).masked_fill(hidden, -1e9).softmax(-1)
                y = torch.einsum("bhij,bhjd->bhid", weights, v)
            else:
                y = (q @ k.transpose(-2, -1) * HEAD**-0.5).masked_fill(hidden, -1e9).softmax(-1) @ v
        y = y.transpose(1, 2)
        if self.literal == "branch" and t < 2:  # fx cannot follow
            return self.out(y.flatten(2))
        return self.out(y.flatten(2) if self.literal == "attribute" else y.reshape(b, t, DIM))


class Timm(nn.Module):
    """Sizes read off the input, as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Net(nn.Module):
    def __init__(self, body: nn.Module, width: int = DIM) -> None:
        super().__init__()
        self.body, self.norm, self.last = body, nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.last(self.norm(x + y if y.shape == x.shape else y).mean(1))


class Encoder(nn.Module):
    """Torch's own layer, a mask given or not."""

    def __init__(self, masked: bool, **options: bool) -> None:
        super().__init__()
        self.masked = masked
        self.layer = nn.TransformerEncoderLayer(DIM, 4, 8, dropout=0.0, **options)

    def forward(self, x: Tensor) -> Tensor:
        swapped = not self.layer.self_attn.batch_first
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1) if self.masked else None
        y = self.layer(x.transpose(0, 1) if swapped else x, src_mask=mask)
        return y.transpose(0, 1) if swapped else y


class Padded(nn.Module):
    """Torch's attention alone, with keys that are hidden by what the input holds."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(DIM, 4, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, key_padding_mask=x[..., 0] > 2, need_weights=False)[0]


class Cells(nn.Module):
    """A recurrent layer; its first state made by itself or in the code."""

    def __init__(self, kind: type[nn.RNNBase], own: bool = False, **options: object) -> None:
        super().__init__()
        self.hidden = 7
        self.rec = kind(DIM, self.hidden, batch_first=True, **options)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        layers = self.rec.num_layers * (2 if self.rec.bidirectional else 1)
        return self.rec(x, torch.zeros(layers, x.shape[0], self.hidden) if self.own else None)[0]


HEADS: dict[str, Callable[[], nn.Module]] = {
    "fused, matmul": lambda: Net(Attention()),
    "fused, einsum": lambda: Net(Attention(how="einsum")),
    "fused, torch": lambda: Net(Attention(how="torch")),
    "apart, matmul": lambda: Net(Attention(fused=False)),
    "grouped, matmul": lambda: Net(Attention(fused=False, kv=2)),
    "grouped, torch": lambda: Net(Attention(fused=False, how="torch", kv=2)),
    "sizes in the code": lambda: Net(Timm()),
    "encoder": lambda: Net(Encoder(False, batch_first=True)),
    "encoder, mask, length first": lambda: Net(Encoder(True, norm_first=True)),
    "padding": lambda: Net(Padded()),
}
UNITS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Net(Cells(nn.LSTM), 7),
    "lstm, two layers, both ways": lambda: Net(Cells(nn.LSTM, num_layers=2, bidirectional=True), 14),
    "gru, no bias": lambda: Net(Cells(nn.GRU, bias=False), 7),
    "gru, own state": lambda: Net(Cells(nn.GRU, own=True, num_layers=2), 7),
    "elman": lambda: Net(Cells(nn.RNN, nonlinearity="relu", bidirectional=True), 14),
}


def built(make: Callable[[], nn.Module]) -> tuple[nn.Module, Traced, Site]:
    torch.manual_seed(0)
    net = make().eval()
    net.norm = nn.Identity() if any(isinstance(m, nn.RNNBase) for m in net.modules()) else net.norm
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    traced = trace(net, torch.randn(2, 6, DIM))
    (site,) = [g for g in traced.groups if g.family]
    return net, traced, site


def without(net: nn.Module, traced: Traced, site: Site, dead: list[int]) -> dict[str, Tensor]:
    """The net's weights with these rows of a site zero, and what goes with them."""
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    for m in site.members:
        at = torch.tensor(m.index if m.index is not None else range(weights[m.param].shape[m.axis]))
        weights[m.param].index_fill_(m.axis, at.reshape(site.shape[0], -1)[dead].flatten(), 0.0)
    return {**weights, **{n: weights[n] * kept for n, kept in traced.kept(weights).items()}}


@pytest.mark.parametrize("name", [*HEADS, *UNITS])
def test_the_smaller_net_is_the_masked_one(name: str) -> None:
    net, traced, site = built((HEADS | UNITS)[name])
    assert site.family == ("head" if name in HEADS else "unit")
    dead = [0] if site.shape[0] < 4 else [1, site.shape[0] - 1]
    masked = copy.deepcopy(net)
    masked.load_state_dict(without(net, traced, site, dead), strict=False)
    small, surgery = shrink(net, traced, dict(masked.named_parameters()))
    left = site.shape[0] - len(dead)
    for m in (*site.members, *site.removes):
        old, new = (dict(n.named_parameters())[m.param].shape[m.axis] for n in (net, small))
        assert new == old * left // site.shape[0], m.param
    x = torch.randn(5, 6, DIM)
    for training in (True, False):
        want, got = masked.train(training)(x), small.train(training)(x)
        assert torch.allclose(want, got, atol=1e-5), f"training {training}"
        with torch.no_grad():
            assert torch.allclose(want, small(x), atol=1e-5)
    again = apply_surgery(net, json.loads(json.dumps(surgery))).eval()
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
    second = trace(copy.deepcopy(small), torch.randn(2, 6, DIM))
    assert sum(g.shape[0] for g in second.groups if g.family) == (left if left > 1 else 0)  # the last one stays


def test_a_head_is_its_rows_of_all_three() -> None:
    """Four heads of three: head 1 has rows 3..5 of the queries, 15..17 of the keys, 27..29 of the values."""
    _, _, site = built(HEADS["fused, matmul"])
    assert site.name == "body.qkv.weight.heads"
    assert site.shape == (4,)
    assert site.members[0].index[9:18] == (3, 4, 5, 15, 16, 17, 27, 28, 29)
    assert [(m.param, m.axis, m.repeat) for m in site.removes] == [("body.qkv.bias", 0, 9), ("body.out.weight", 1, 3)]


def test_query_heads_that_share_a_key_go_together() -> None:
    _, _, site = built(HEADS["grouped, torch"])
    assert site.shape == (2,)
    assert [(m.param, m.repeat) for m in site.members] == [
        ("body.a.weight", 6),
        ("body.b.weight", 3),
        ("body.c.weight", 3),
    ]


def test_a_unit_is_its_gates_its_column_and_its_readers() -> None:
    _, _, site = built(UNITS["lstm, two layers, both ways"])
    assert site.name == "body.rec.weight_ih_l0.units"
    assert site.shape == (7,)
    assert len(site.members) == 8
    assert all(m.repeat == 4 for m in site.members)
    columns = [(m.param, m.repeat) for m in site.removes if m.axis == 1]
    assert ("body.rec.weight_hh_l1_reverse", 1) in columns
    assert ("body.rec.weight_ih_l1", 2) in columns
    assert ("last.weight", 2) in columns


def test_a_unit_stays_that_only_other_units_read() -> None:
    """Unit 0 has no reader outside, but moves unit 1; unit 2 has none at all and moves itself only."""
    net, traced, _site = built(UNITS["lstm"])
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    weights["last.weight"][:, [0, 2]] = 0.0
    weights["body.rec.weight_hh_l0"][:, 2] = 0.0
    weights["body.rec.weight_hh_l0"][2::7, 2] = 1.0
    masked = copy.deepcopy(net)
    masked.load_state_dict(weights)
    small, _ = shrink(net, traced, weights)
    assert small.body.rec.hidden_size == 6
    x = torch.randn(4, 6, DIM)
    assert torch.allclose(small(x), masked(x), atol=1e-5)


def test_a_bias_alone_keeps_a_unit_alive() -> None:
    net, traced, site = built(UNITS["lstm"])
    weights = without(net, traced, site, [3])
    weights["body.rec.bias_ih_l0"][2 * 7 + 3] = 0.5  # its cell gate
    assert bool(traced.effective(weights)["last.weight"][:, 3].all())  # a removal that is refused says less
    small, _ = shrink(net, traced, weights)
    assert small.body.rec.hidden_size == 7


def test_a_number_in_the_code_keeps_the_heads_and_says_where() -> None:
    net, traced, site = built(lambda: Net(Attention(literal="branch")))
    assert "reshape(b, t, DIM)" in stays(net, traced, site)
    small, surgery = shrink(net, traced, without(net, traced, site, [0]))
    assert surgery["edits"] == []
    assert small.body.qkv.weight.shape == (36, DIM)
    for make in (HEADS["fused, matmul"], HEADS["encoder"], UNITS["gru, own state"]):
        assert stays(*built(make)) == ""


def test_what_cannot_be_told_apart_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.short = nn.GRUCell(DIM, 7), nn.LSTM(DIM, 7, proj_size=5, batch_first=True)
            self.qkv, self.last = nn.Linear(DIM, 3 * DIM), nn.Linear(7 + 5 + DIM, 5)
            self.register_buffer("place", torch.randn(4, 1, HEAD))

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(x.shape[0], 7)
            for i in range(x.shape[1]):
                h = self.cell(x[:, i], h)
            q, k, v = self.qkv(x).unflatten(-1, (3, 4, HEAD)).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q + self.place, k, v).transpose(1, 2).flatten(2)
            return self.last(torch.cat([h, self.short(x)[0][:, -1], y.mean(1)], 1))

    traced = trace(Odd().eval(), torch.randn(2, 6, DIM))
    assert not [g for g in traced.groups if g.family]
    why = {held.name: held.why for held in traced.held}
    assert "step by step" in why["cell.weight_ih"]
    assert "proj_size" in why["short.weight_ih_l0"]
    assert why["qkv.weight"] == "add (forward) meets a constant of fixed size"


def test_products_without_heads_hold_nothing() -> None:
    """A Gram matrix mixes all channels; one head of attention over examples is no axis of heads."""

    class Gram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.last = nn.Linear(DIM, 4), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.last((y.transpose(1, 2) @ y).flatten(1))

    traced = trace(Gram().eval(), torch.randn(2, 6, DIM))
    assert traced.groups == ()
    assert ("a.weight", "those of a.weight hang together, removing one would remove all") in {
        (held.name, held.why) for held in traced.held
    }


@pytest.mark.parametrize(
    "row",
    [
        {"attention": [{"module": "body", "mask": "none", "padding": "none"}]},
        {"attributes": [{"module": "body", "name": "heads", "was": 5, "value": 2}]},
        {"attributes": [{"module": "body", "name": "heads", "was": 4, "value": 5}]},
        {"reshapes": [{"module": "body", "calls": {"nowhere": [1, -1]}}]},
        {"reshapes": [{"module": "body", "calls": {"reshape": [1, -1]}}]},
        {"attributes": [{"module": "nowhere", "name": "heads", "was": 4, "value": 2}]},
    ],
)
def test_a_record_of_another_model_is_refused(row: dict[str, object]) -> None:
    net, _, _ = built(HEADS["fused, matmul"])
    with pytest.raises(FormatError, match="surgery"):
        apply_surgery(net, {"version": 3, "edits": [], "biases": {}, "pads": [], **row})
