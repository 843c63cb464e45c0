"""Who reads what a site's rows make, against a net whose other layers are made to answer as before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from secateur.graph import trace

from .nets import all_nets

WIDTH = 4
_DRAWS = 4  # of the changed rows: what a relu or a maximum hides in one shows in another
Layer = nn.Linear | nn.Conv1d | nn.Conv2d


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Side(nn.Module):
    """Two layers of the same input, one behind the other along the channels; a third one brings them to width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(), conv(), nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), torch.relu(self.b(x))], 1))


class Apart(nn.Module):
    """Some of the channels go one way, the others another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(), nn.Conv2d(1, WIDTH, 1), nn.Conv2d(WIDTH - 1, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y[:, :1]) + self.c(y[:, 1:])


def conv(groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=groups)


PARTS = {
    "conv": conv,
    "depthwise": lambda: conv(WIDTH),
    "residual": lambda: Residual(nn.Sequential(conv(), nn.Tanh())),
    "two in a residual": lambda: Residual(nn.Sequential(conv(), nn.ReLU(), conv())),
    "concat": Side,
    "apart": Apart,
    "norm": lambda: nn.BatchNorm2d(WIDTH),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "pool": lambda: nn.AvgPool2d(3, 1, 1),
}
TAILS = {
    "flat": lambda: [nn.Flatten(), nn.Linear(WIDTH * 25, 3)],
    "mean": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3), nn.GELU(), nn.Linear(3, 2)],
}


def built(parts: Sequence[str], tail: str) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, WIDTH, 1), *(PARTS[p]() for p in parts), *TAILS[tail]()]
    return nn.Sequential(*layers).double().eval()


def read(net: nn.Module, x: Tensor, producer: str, rows: Sequence[int] | None = None) -> set[str]:
    """The layers whose input moves with these rows of what a layer makes while all others answer as they did before."""
    layers = {n: m for n, m in net.named_modules() if isinstance(m, Layer)}
    seen: dict[str, list[Tensor]] = {n: [] for n in layers}
    said: dict[str, Tensor] = {}
    draws: list[torch.Generator] = []

    def watch(name: str) -> object:
        def see(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            seen[name].append(args[0].detach())
            if name != producer or not draws:
                return said.setdefault(name, out)
            # What it makes, not its weight: where a relu gives it nothing but zeros its weight moves nothing.
            by_row = out.clone().movedim(-1 if isinstance(module, nn.Linear) else 1, 0)
            at = list(range(len(by_row))) if rows is None else list(rows)
            by_row[at] += 2 * torch.randn(by_row[at].shape, generator=draws[-1], dtype=out.dtype)
            return by_row.movedim(0, -1 if isinstance(module, nn.Linear) else 1)

        return see

    hooks = [m.register_forward_hook(watch(n)) for n, m in layers.items()]
    try:
        with torch.no_grad():
            net(x)
            for draw in range(_DRAWS):
                draws.append(torch.Generator().manual_seed(draw))
                net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {f"{n}.weight" for n, xs in seen.items() if any(not torch.equal(xs[0], y) for y in xs[1:])}


def agree(net: nn.Module, x: Tensor) -> None:
    traced = trace(net, x)
    layers = {f"{n}.weight": n for n, m in net.named_modules() if isinstance(m, Layer)}
    order = [s.name for s in traced.sites]
    for site in traced.sites:
        assert list(site.readers) == [n for n in order if n in site.readers], f"{site.name}: {site.readers}"
        if site.name in layers:
            assert set(site.readers) == read(net, x, layers[site.name]), site.name
        if site.name.removesuffix("bias") + "weight" in layers:  # a bias is read as its weight is
            assert site.readers == next(s for s in traced.sites if s.name == site.name[:-4] + "weight").readers
    for group in traced.groups:
        wanted = set().union(*(read(net, x, layers[m.param], m.index) for m in group.members))
        assert set(group.readers) == wanted, group.name
        beside = {m.param for m in group.removes} - wanted  # what is left of `removes`: norms, statistics and biases
        assert all(name not in layers for name in beside)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(PARTS)), max_size=5), st.sampled_from(sorted(TAILS)))
def test_readers_are_the_next_layers_whose_input_moves(parts: list[str], tail: str) -> None:
    agree(built(parts, tail), torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(1)).double())


@pytest.mark.parametrize("name", ["lenet", "mlp", "vgg", "resnet", "concat", "depthwise", "conv1d"])
def test_readers_in_nets_as_they_are_written(name: str) -> None:
    net, x = all_nets()[name]
    assert isinstance(x, Tensor)
    agree(net.double().eval(), x.double())


class Code(nn.Module):
    """An embedding, a weight of the code's own, attention without one between, and a weight that reads itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.own = nn.Embedding(7, 4), nn.Parameter(torch.randn(4, 4))
        self.query, self.key, self.again = (nn.Linear(4, 4) for _ in range(3))
        self.start, self.lstm = nn.Linear(4, 4), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.table(x) @ self.own
        y = F.scaled_dot_product_attention(self.query(y), self.key(y), y)
        y = self.again(torch.relu(self.again(y)))
        return self.lstm(y, (torch.zeros_like(self.start(y[:, 0]))[None], y[:, 1][None]))[0]


def test_readers_in_code() -> None:
    found = {s.name: s.readers for s in trace(Code(), torch.randint(0, 7, (2, 3))).sites}
    recurrent = ("lstm.weight_ih_l0", "lstm.weight_hh_l0")
    assert found["table.weight"] == ("own",)
    assert found["own"] == ("query.weight", "key.weight", "again.weight")
    assert found["query.weight"] == found["query.bias"] == found["key.weight"] == ("again.weight",)
    assert found["again.weight"] == ("again.weight", "start.weight", *recurrent)
    assert found["start.weight"] == ()  # only its size is read
    assert found["lstm.weight_hh_l0"] == ()
