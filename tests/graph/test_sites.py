"""Every weight is a site: shapes, rows, multiply-adds, for each kind of layer and for parameters of the code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph import trace
from secateur.terms import views
from secateur.types import Member, Site

FEW = settings(max_examples=12, deadline=None)
flags = st.booleans()


class First(nn.Module):
    """A layer that answers with several results, of which the first is taken; time first where it wants that."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if self.layer.batch_first else x.transpose(0, 1))[0]


class Unrolled(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state[0] if isinstance(state, tuple) else state


class Code(nn.Module):
    """One parameter, used by a line of code."""

    def __init__(self, use: Any, *shape: int) -> None:
        super().__init__()
        self.w, self.use = nn.Parameter(torch.randn(shape)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.w)


def by_name(net: nn.Module, x: Any) -> dict[str, Site]:
    return {s.name: s for s in trace(net, x).sites}


def assert_all_are_sites(net: nn.Module, x: Any) -> dict[str, Site]:
    t = trace(net, x)
    found = {s.name: s for s in t.sites}
    assert found.keys() == {n for n, _ in net.named_parameters()}
    assert all(found[n].shape == p.shape for n, p in net.named_parameters())
    assert t.left_out == ()
    return found


def counted(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds per example by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(x)
    return counter.get_total_flops() // 2 // x.shape[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.filterwarnings("ignore:RNN module weights")
@FEW
@given(
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
    layers=st.integers(1, 2),
    both_ways=flags,
    bias=flags,
    batch_first=flags,
    proj=st.integers(0, 2),
    steps=st.integers(1, 4),
)
def test_every_weight_of_a_recurrent_layer_is_used_once_a_step(
    kind: Any, layers: int, both_ways: bool, bias: bool, batch_first: bool, proj: int, steps: int
) -> None:
    more = {"proj_size": proj} if kind is nn.LSTM else {}
    net = First(kind(3, 4, layers, bias=bias, batch_first=batch_first, bidirectional=both_ways, **more))
    found = assert_all_are_sites(net, torch.randn(2, steps, 3))
    weights = {n: s for n, s in found.items() if "weight" in n}
    assert {s.op for s in weights.values()} == {"recurrent"}
    # With time in front the first axis is no batch axis: the two steps of all sequences are one example.
    assert {s.positions for s in weights.values()} == {steps if batch_first else 2 * steps}
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    assert views.shape(weights["layer.weight_ih_l0"], "oc", {}) == (4 * gates, 3)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_a_cell_in_a_loop_is_used_at_every_turn(cell: Any, gates: int) -> None:
    found = assert_all_are_sites(Unrolled(cell(3, 4)), torch.randn(2, 5, 3))
    assert {found[f"cell.{n}"].positions for n in ("weight_ih", "weight_hh")} == {5}
    assert views.shape(found["cell.weight_hh"], "oc", {}) == (4 * gates, 4)


@FEW
@given(
    d=st.integers(1, 3),
    groups=st.integers(1, 2),
    stride=st.integers(1, 3),
    kernel=st.integers(1, 3),
    pad=st.integers(0, 1),
)
def test_rows_of_a_transposed_convolution_are_its_output_channels(
    d: int, groups: int, stride: int, kernel: int, pad: int
) -> None:
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[d - 1]
    net = layer(4, 6, kernel, stride, min(pad, kernel - 1), groups=groups, bias=False)
    x = torch.rand(2, 4, *[4] * d)
    site = assert_all_are_sites(net, x)["weight"]
    assert (site.op, site.groups) == ("conv_transpose", groups)
    assert site.n * site.positions == counted(net, x)
    assert_row_is_an_output(net, x, site, axis=1)


def assert_row_is_an_output(net: nn.Module, x: Tensor, site: Site, axis: int) -> None:
    """With one row of ones and zeros elsewhere, one index of the output's `axis` moves, its own."""
    params = {n: p.detach() for n, p in net.named_parameters()}
    rows, cols = views.shape(site, "oc", params)
    for r in range(rows):
        matrix = torch.zeros(rows, cols)
        matrix[r] = 1
        weights = views.write(site, "oc", params, matrix)
        with torch.no_grad():
            y = torch.func.functional_call(net, weights, (x.abs() + 0.1,))
        assert y.movedim(axis, 0).reshape(y.shape[axis], -1).any(1).nonzero().tolist() == [[r]]


@pytest.mark.parametrize("view", ["oc", "o_khkw_c"])
@pytest.mark.parametrize(
    ("shape", "rows", "groups"),
    [
        ((4, 3, 2, 2), (1,), 2),
        ((4, 3, 2, 2), (1,), 1),
        ((2, 3, 5), (0, 2), 1),
        ((2, 3, 5), (2, 0), 1),
        ((5, 2), (1,), 1),
        ((2, 3), (), 1),
        ((4, 3, 2), (0,), 1),
    ],
)
def test_a_matrix_is_written_back_where_it_came_from(
    shape: tuple[int, ...], rows: tuple[int, ...], groups: int, view: str
) -> None:
    site = Site("w", "matmul", shape, (Member("w"),), groups=groups, rows=rows)
    params = {"w": torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)}
    matrix = views.matrix(site, view, params)
    assert matrix.shape == views.shape(site, view, params)
    assert torch.equal(matrix.flatten().sort().values, params["w"].flatten())
    assert torch.equal(views.write(site, view, params, matrix)["w"], params["w"])
    changed = views.write(site, view, params, 2 * matrix)["w"]
    assert torch.equal(changed, 2 * params["w"])


CODE = [
    ("x @ w", lambda x, w: x @ w, (8, 5), (2, 3, 8), 2),
    ("x @ w.t()", lambda x, w: x @ w.t(), (5, 8), (2, 3, 8), 2),
    ("linear", lambda x, w: F.linear(x, w[1:].transpose(0, 1)), (9, 5), (2, 3, 8), 2),
    ("einsum", lambda x, w: torch.einsum("bti,oi->bto", x, w), (5, 8), (2, 3, 8), 2),
    ("einsum, other order", lambda x, w: torch.einsum("io,...i->...o", w, x), (8, 5), (2, 3, 8), 2),
    ("reshaped", lambda x, w: x @ w.reshape(5, 8).mT, (5, 2, 4), (2, 3, 8), 2),
    ("addmm", lambda x, w: torch.addmm(torch.zeros(5), x, w), (8, 5), (2, 8), 1),
    ("computed on", lambda x, w: x @ (w * torch.ones(8, 5)).tanh(), (8, 5), (2, 3, 8), 2),
    ("conv", lambda x, w: F.conv1d(x, w * 0.5), (5, 3, 2), (2, 3, 8), 1),
]


@pytest.mark.parametrize(("use", "shape", "given_", "axis"), [c[1:] for c in CODE], ids=[c[0] for c in CODE])
def test_a_parameter_of_the_code_has_its_outputs_as_rows(use: Any, shape: Any, given_: Any, axis: int) -> None:
    net, x = Code(use, *shape), torch.rand(given_)
    site = assert_all_are_sites(net, x)["w"]
    assert site.op == "matmul"
    assert site.last
    if shape != (9, 5):  # of which one row is cut off
        assert site.n * site.positions == counted(net, x)
    if shape == (5, 2, 4):
        assert site.rows == (0,)
    assert_row_is_an_output(net, x, site, axis)


def test_one_matrix_per_head_has_rows_for_every_head_and_output() -> None:
    net, x = Code(lambda x, w: torch.bmm(x.transpose(0, 1), w).transpose(0, 1), 3, 8, 5), torch.rand(2, 3, 8)
    site = assert_all_are_sites(net, x)["w"]
    assert (site.rows, site.positions) == ((0, 2), 1)
    assert views.shape(site, "oc", {}) == (15, 8)
    experts = Code(lambda x, w: torch.einsum("bti,hio->bhto", x, w), 3, 8, 5)
    assert (by_name(experts, torch.rand(2, 4, 8))["w"].rows, by_name(experts, torch.rand(2, 4, 8))["w"].positions) == (
        (0, 2),
        4,
    )


def test_one_number_per_row_is_shaped_like_the_weight_whatever_its_rows() -> None:
    w = torch.randn(3, 4)
    for rows, numbers in (((0,), torch.rand(3)), ((1,), torch.rand(4)), ((), torch.rand(1))):
        site = Site("w", "matmul", w.shape, (Member("w"),), rows=rows)
        scaled = views.matrix(site, "oc", {"w": w}) * numbers[:, None]
        spread = views.spread(site, numbers, w)
        assert spread is not None
        torch.testing.assert_close(w * spread, views.write(site, "oc", {"w": w}, scaled)["w"])
    assert views.spread(Site("w", "matmul", w.shape, (Member("w"),), rows=(0, 1)), torch.rand(12), w) is None


def test_bilinear_forms_and_learned_queries_count_what_they_multiply() -> None:
    pair = nn.Bilinear(4, 5, 3, bias=False)
    net = Code(lambda x, w: F.bilinear(x[:, :4], x[:, 4:], w), *pair.weight.shape)
    assert by_name(net, torch.rand(2, 9))["w"].positions == 1
    query = Code(lambda x, w: F.scaled_dot_product_attention(w.expand(x.shape[0], -1, -1), x, x), 1, 3, 8)
    site = by_name(query, torch.rand(2, 6, 8))["w"]
    assert (site.op, site.positions, site.rows) == ("matmul", 6, (0, 1))


def test_a_table_is_looked_up_or_added_and_multiplies_nothing() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)
            self.place, self.cls = nn.Parameter(torch.randn(1, 5, 6)), nn.Parameter(torch.randn(1, 1, 6))
            self.gain = nn.Parameter(torch.randn(1, 6))

        def forward(self, x: Tensor) -> Tensor:
            t = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.words(x)], 1) + self.place
            return self.head((t * self.gain).mean(1))

    net, x = Tokens(), torch.randint(0, 20, (2, 4))
    found = assert_all_are_sites(net, x)
    assert {n: found[n].op for n in ("words.weight", "place", "cls", "gain")} == {
        "words.weight": "embedding",
        "place": "embedding",
        "cls": "bias",
        "gain": "norm",
    }
    assert views.shape(found["place"], "oc", {}) == (5, 6)
    assert trace(net, x).macs == {"head.weight": 18}


def test_an_embedding_tied_to_the_head_counts_what_the_head_multiplies() -> None:
    class TiedHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    class TiedInCode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(20, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.words(x) @ self.words.weight.t()

    for net, op in ((TiedHead(), "linear"), (TiedInCode(), "matmul")):
        x = torch.randint(0, 20, (2, 4))
        found = assert_all_are_sites(net, x)
        assert list(found) == ["words.weight"]
        words = found["words.weight"]
        assert (words.op, words.positions, words.rows, words.last) == (op, 4, (0,), True)
        assert trace(net, x).macs == {"words.weight": 4 * 20 * 6}


def test_a_layer_whose_weight_the_code_reads_again_counts_both_products() -> None:
    class Back(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.fc(x)) @ self.fc.weight

    net, x = Back(), torch.rand(2, 6)
    found = assert_all_are_sites(net, x)
    assert (found["fc.weight"].op, found["fc.weight"].positions) == ("linear", 2)
    assert trace(net, x).macs == {"fc.weight": 2 * 18}


def test_packed_projections_of_attention_and_three_dimensional_convolutions() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x, x, x, need_weights=False)[0]

    found = assert_all_are_sites(Attention(), torch.rand(2, 5, 8))
    assert (found["a.in_proj_weight"].op, found["a.in_proj_weight"].positions) == ("linear", 5)
    assert found["a.bias_k"].op == "bias"
    volume = assert_all_are_sites(nn.Conv3d(2, 3, 2), torch.rand(2, 2, 3, 3, 3))["weight"]
    assert (volume.op, volume.positions) == ("conv", 8)


def test_what_a_transposed_convolution_no_longer_reaches_is_not_effective() -> None:
    net = nn.Sequential(nn.ConvTranspose1d(2, 3, 2, 2, bias=False), nn.ReLU(), nn.Conv1d(3, 1, 1, bias=False))
    t = trace(net, torch.rand(1, 2, 4))
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    weights["2.weight"][:, 1] = 0
    alive = t.effective(weights)["0.weight"]
    assert alive[:, [0, 2]].all()
    assert not alive[:, 1].any()


def test_a_state_alone_keeps_all_weights_of_its_layer() -> None:
    class State(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.r(x)[1][0][0])

    net = State()
    alive = trace(net, torch.rand(2, 5, 3)).effective(dict(net.named_parameters()))
    assert all(m.all() for m in alive.values())
