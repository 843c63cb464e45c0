"""Families of networks on words, patches, steps of time and graphs, in small, as their usual implementations are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class SelfAttention(nn.Module):
    """One projection for queries, keys and values, heads side by side."""

    def __init__(self, n: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads, self.causal = nn.Linear(n, 3 * n), nn.Linear(n, n), heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, n = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, n // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, t, n))


class Block(nn.Module):
    """Norms first."""

    def __init__(self, n: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(n), SelfAttention(n, heads, causal)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(n), nn.Linear(n, 3 * n), nn.Linear(3 * n, n)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches, a token of its own, learned positions (Dosovitskiy et al., arXiv:2010.11929)."""

    def __init__(self, n: int = 12) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, n, 4, 4), nn.Parameter(torch.randn(1, 1, n))
        self.position, self.blocks = nn.Parameter(torch.randn(1, 17, n)), nn.Sequential(Block(n, 3), Block(n, 3))
        self.norm, self.head = nn.LayerNorm(n), nn.Linear(n, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.token.expand(x.shape[0], -1, -1), t], 1) + self.position
        return self.head(self.norm(self.blocks(t))[:, 0])


class WindowBlock(nn.Module):
    """Attention in windows, rolled, with a table of relative positions (Liu et al., arXiv:2103.14030)."""

    def __init__(self, n: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.qkv, self.proj = nn.LayerNorm(n), nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.norm2, self.mlp = nn.LayerNorm(n), nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))
        self.heads, self.window, self.shift = heads, window, shift
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, n = x.shape
        s = self.window
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // s, s, w // s, s, n).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, n)
        q, k, v = self.qkv(y).reshape(-1, s * s, 3, self.heads, n // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
        a = (q * (n // self.heads) ** -0.5 @ k.transpose(-2, -1) + bias).softmax(-1)
        y = self.proj((a @ v).transpose(1, 2).reshape(-1, s * s, n))
        y = y.view(b, h // s, w // s, s, s, n).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, n)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two window blocks, patches merged by slices, one more block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.a, self.b = nn.Conv2d(3, 8, 2, 2), WindowBlock(8, 2, 4, 0), WindowBlock(8, 2, 4, 2)
        self.norm, self.merge, self.c = nn.LayerNorm(32), nn.Linear(32, 12, bias=False), WindowBlock(12, 2, 4, 0)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.patch(x).permute(0, 2, 3, 1)))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.c(self.merge(self.norm(torch.cat(parts, -1))))
        return self.head(self.last(x).mean((1, 2)))


class Bert(nn.Module):
    """Norms last, three projections, attention written out, a mask as second input (arXiv:1810.04805)."""

    def __init__(self, n: int = 12, heads: int = 3, words: int = 30) -> None:
        super().__init__()
        self.words, self.places, self.norm0 = nn.Embedding(words, n), nn.Embedding(16, n), nn.LayerNorm(n)
        self.query, self.key, self.value = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, n)
        self.dense, self.norm1, self.heads = nn.Linear(n, n), nn.LayerNorm(n), heads
        self.up, self.down, self.norm2 = nn.Linear(n, 2 * n), nn.Linear(2 * n, n), nn.LayerNorm(n)
        self.pooler, self.head = nn.Linear(n, n), nn.Linear(n, 2)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).permute(0, 2, 1, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm0(self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device)))
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + (1 - mask[:, None, None, :]) * -1e4
        y = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).flatten(2)
        x = self.norm1(x + self.dense(y))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class Gpt(nn.Module):
    """Causal, the output layer tied to the embedding (Radford et al., 2019)."""

    def __init__(self, n: int = 12, words: int = 30) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, n), nn.Embedding(16, n)
        self.blocks, self.norm = nn.Sequential(Block(n, 3, True), Block(n, 3, True)), nn.LayerNorm(n)
        self.head = nn.Linear(n, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


class Bag(nn.Module):
    """The mean of an embedding's words, two layers: an embedding whose columns are channels."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(30, 12), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(self.words(ids).mean(1))))


class TextCnn(nn.Module):
    """Convolutions over words (Kim, arXiv:1408.5882), the input embedding not tied to anything."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 12)
        self.convs = nn.ModuleList([nn.Conv1d(12, 6, k, padding=k // 2) for k in (1, 3)])
        self.out = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids).transpose(1, 2)
        return self.out(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1))


class Tagger(nn.Module):
    """A class for every word: embedding, recurrent layer, two linear layers."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN], both_ways: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.cell = cell(8, 10, batch_first=True, bidirectional=both_ways)
        self.hidden, self.out = nn.Linear(20 if both_ways else 10, 12), nn.Linear(12, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.cell(self.words(ids))[0])))


class Gcn(nn.Module):
    """Features and a normalised adjacency; no batch axis (Kipf & Welling, arXiv:1609.02907)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(adjacency @ self.first(x))
        return adjacency @ self.third(F.relu(torch.matmul(adjacency, self.second(x))))


class Gat(nn.Module):
    """Attention over neighbours with one head (Velickovic et al., arXiv:1710.10903)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.here, self.there = nn.Linear(6, 12), nn.Linear(12, 1, bias=False), nn.Linear(12, 1)
        self.second = nn.Linear(12, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.first(x)
        e = F.leaky_relu(self.here(h) + self.there(h).T, 0.2)
        return self.second(F.elu(torch.softmax(e.masked_fill(adjacency == 0, -1e9), -1) @ h))


def sequences() -> dict[str, tuple[nn.Module, object]]:
    """Name -> (net, example inputs of batch 2; graphs as a whole)."""
    x, ids = torch.randn(2, 3, 16, 16), torch.randint(0, 30, (2, 6))
    mask = torch.ones(2, 6)
    mask[1, 4:] = 0
    adjacency = ((torch.rand(7, 7) < 0.4).float() + torch.eye(7)).clamp(max=1)
    graph = (torch.randn(7, 6), adjacency / adjacency.sum(1, keepdim=True))
    return {
        "ViT": (ViT(), x),
        "Swin": (Swin(), x),
        "BERT": (Bert(), (ids, mask)),
        "GPT": (Gpt(), ids),
        "bag of words": (Bag(), ids),
        "text CNN": (TextCnn(), ids),
        "LSTM tagger": (Tagger(nn.LSTM, True), ids),
        "GRU tagger": (Tagger(nn.GRU, False), ids),
        "RNN tagger": (Tagger(nn.RNN, False), ids),
        "GCN": (Gcn(), graph),
        "GAT": (Gat(), graph),
    }
