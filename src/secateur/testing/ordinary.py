"""Ordinary networks made tiny: the kinds that every door must let in at the first try.

Eight are those of `zoo.ordinary`; two more are encoders and decoders of text, as their authors write them.
`NETS` maps a name to a function of a seed that returns `(net in eval mode with fixed random weights, example inputs)`;
the inputs have a leading batch axis of 2, but for the graph net, whose inputs are a whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from secateur.zoo import ordinary as zoo


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
    "mobilenet": _ready(lambda: zoo.MobileNet(widths=(8, 12)), _image),
    "vit": _ready(lambda: zoo.ViT(8, 2, 32, 2), _image),
    "bert": _ready(Bert, lambda: (_words(40), torch.randint(0, 2, (2, 12)))),
    "gpt": _ready(Gpt, lambda: (_words(40),)),
    "unet": _ready(lambda: zoo.UNet((6, 8, 12)), _image),
    "conv1d": _ready(lambda: zoo.Conv1dNet(4, (12, 16, 16)), lambda: (torch.randn(2, 4, 8),)),
    "gru": _ready(lambda: zoo.GRUClassifier(30, 12, 16, 5), lambda: (_words(30),)),
    "lstm": _ready(lambda: zoo.CharLSTM(30, 12, 16), lambda: (_words(30),)),
    "spiking": _ready(lambda: zoo.SpikingNet(8, 4, 24), _image),
    "gcn": _ready(lambda: zoo.GCN(6, 16, 3), _graph),
}
