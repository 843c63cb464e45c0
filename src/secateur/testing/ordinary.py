"""Ordinary networks as their authors write them, made tiny: the kinds that every door must let in at the first try.

`NETS` maps a name to a function of a seed that returns `(net in eval mode with fixed random weights, example inputs)`;
the inputs have a leading batch axis of 2, but for the graph net, whose inputs are a whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class _InvertedResidual(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = n_in * expand
        self.same = stride == 1 and n_in == n_out
        self.body = nn.Sequential(
            nn.Conv2d(n_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.same else y


class MobileNet(nn.Module):
    """Depthwise-separable blocks with ReLU6, as in MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(_InvertedResidual(8, 8, 1, 2), _InvertedResidual(8, 12, 2, 3))
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(12, 10))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
        return y


class ViT(nn.Module):
    """Patches, a class token, torch's own encoder layers with the norm first (Dosovitskiy et al. 2021)."""

    def __init__(self, dim: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 2, 2)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, 17, dim))
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.cls.expand(x.shape[0], -1, -1), t], 1) + self.pos
        y: Tensor = self.head(self.norm(self.encoder(t))[:, 0])
        return y


class Bert(nn.Module):
    """Word, place and segment embeddings, encoder layers with the norm last and a padding mask (Devlin et al. 2019)."""

    def __init__(self, words: int = 40, length: int = 12, dim: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.words, self.places, self.segments = (nn.Embedding(n, dim) for n in (words, length, 2))
        self.norm = nn.LayerNorm(dim)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler, self.head = nn.Linear(dim, dim), nn.Linear(dim, 3)

    def forward(self, tokens: Tensor, segments: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.places(places) + self.segments(segments))
        x = self.encoder(x, src_key_padding_mask=tokens == 0)
        y: Tensor = self.head(torch.tanh(self.pooler(x[:, 0])))
        return y


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.join = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(dim, dim=2)
        q, k, v = (t.view(batch, length, self.heads, dim // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.join(y.transpose(1, 2).contiguous().view(batch, length, dim))
        z: Tensor = x + self.mlp(self.norm2(x))
        return z


class Gpt(nn.Module):
    """A causal decoder with torch's fused attention and tied embeddings (Radford et al. 2019)."""

    def __init__(self, words: int = 40, length: int = 12, dim: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, dim), nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(self.norm(x))
        return y


def _double(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Down, up by ConvTranspose, skips by concatenation (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _double(1, 6), _double(6, 8), _double(8, 12)
        self.up2, self.up1 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.join2, self.join1 = _double(16, 8), _double(12, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        m = self.middle(F.max_pool2d(b, 2))
        d = self.join2(torch.cat([self.up2(m), b], 1))
        y: Tensor = self.out(self.join1(torch.cat([self.up1(d), a], 1)))
        return y


class Recurrent(nn.Module):
    """An embedding, a GRU or an LSTM over the words, a layer on the mean of its states."""

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.embed, self.cells, self.out = nn.Embedding(30, 12), cell(12, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.cells(self.embed(tokens))
        y: Tensor = self.out(states.mean(1))
        return y


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        slope: Tensor = grads[0] / (1 + 10 * v.abs()) ** 2
        return slope


class Spiking(nn.Module):
    """Leaky integrate-and-fire cells, four steps in the code, surrogate gradients (Neftci et al. 2019)."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 24), nn.Linear(24, 10)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        v1: Any = 0.0
        v2: Any = 0.0
        total: Any = 0.0
        for _ in range(self.steps):
            v1 = 0.5 * v1 + self.conv(x)
            s1 = _Spike.apply(v1 - 1.0)
            v1 = v1 * (1 - s1)
            v2 = 0.5 * v2 + self.fc(F.avg_pool2d(s1, 2).flatten(1))
            s2 = _Spike.apply(v2 - 1.0)
            v2 = v2 * (1 - s2)
            total = total + self.out(s2)
        y: Tensor = total / self.steps
        return y


class Gcn(nn.Module):
    """Two graph convolutions (Kipf and Welling 2017); the adjacency is an input, no axis is a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y: Tensor = self.second(adjacency @ F.relu(self.first(adjacency @ x)))
        return y


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 12, 3, padding=1),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(12, 16, 3, padding=1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _image() -> tuple[Tensor, ...]:
    return (torch.randn(2, 1, 8, 8),)


def _words(n: int, low: int = 0) -> Tensor:
    return torch.randint(low, n, (2, 12))


def _graph() -> tuple[Tensor, ...]:
    links = (torch.rand(9, 9) < 0.3).float()
    links = ((links + links.T) > 0).float() + torch.eye(9)
    return torch.randn(9, 6), links / links.sum(1, keepdim=True)


Made = tuple[nn.Module, tuple[Tensor, ...]]


def _ready(net: Callable[[], nn.Module], inputs: Callable[[], Sequence[Tensor]]) -> Callable[[int], Made]:
    def make(seed: int = 0) -> Made:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = net()
            for m in made.modules():  # norms as after a training, not the identity
                if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.running_mean is not None:
                    nn.init.normal_(m.running_mean, 0.0, 0.2)
                    nn.init.uniform_(m.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            return made.eval(), tuple(inputs())

    return make


NETS: dict[str, Callable[[int], Made]] = {
    "mobilenet": _ready(MobileNet, _image),
    "vit": _ready(ViT, _image),
    "bert": _ready(Bert, lambda: (_words(40), torch.randint(0, 2, (2, 12)))),
    "gpt": _ready(Gpt, lambda: (_words(40),)),
    "unet": _ready(UNet, _image),
    "conv1d": _ready(_conv1d, lambda: (torch.randn(2, 4, 8),)),
    "gru": _ready(lambda: Recurrent(nn.GRU), lambda: (_words(30),)),
    "lstm": _ready(lambda: Recurrent(nn.LSTM), lambda: (_words(30),)),
    "spiking": _ready(Spiking, _image),
    "gcn": _ready(Gcn, _graph),
}
