"""One small trainable net of each family of workloads that `zoo/ordinary.py` has none of, as people write them.

Nothing here knows of Secateur. Sizes are arguments: `secateur reproduce families` takes the defaults as its dense nets
and smaller ones as their controls.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class GAT(nn.Module):
    """Two layers of graph attention, dense (Velickovic et al., arXiv:1710.10903). No batch axis: one graph, one input.

    Inputs: features [nodes, features], adjacency [nodes, nodes], of which only zero or not counts (with loops);
    output [nodes, classes].
    """

    def __init__(self, features: int = 1433, heads: int = 2, hidden: int = 16, classes: int = 7) -> None:
        super().__init__()
        self.first, self.second = Attend(features, heads, hidden), Attend(heads * hidden, 1, classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Class scores of each node."""
        apart = adjacency == 0
        states = F.elu(self.first(self.drop(x), apart))
        scores: Tensor = self.second(self.drop(states), apart)
        return scores


class Attend(nn.Module):
    """One layer of it: a node's neighbours by softmax of leaky(here . own + there . theirs), heads side by side."""

    def __init__(self, n_in: int, heads: int, n_out: int) -> None:
        super().__init__()
        self.heads, self.n_out = heads, n_out
        self.project = nn.Linear(n_in, heads * n_out, bias=False)
        self.here, self.there = (nn.Parameter(torch.randn(heads, n_out, 1) / math.sqrt(n_out)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(heads * n_out))

    def forward(self, x: Tensor, apart: Tensor) -> Tensor:
        """[nodes, n_in], bool [nodes, nodes] -> [nodes, heads * n_out]."""
        h = self.project(x).view(-1, self.heads, self.n_out).transpose(0, 1)
        scores = F.leaky_relu(h @ self.here + (h @ self.there).transpose(1, 2), 0.2)
        shares = scores.masked_fill(apart, -1e9).softmax(-1)
        y: Tensor = (shares @ h).transpose(0, 1).flatten(1) + self.bias
        return y


class Conv1dAttention(nn.Module):
    """Convolutions over time, then self-attention between frames: input [n, 1, bands, frames], output [n, classes]."""

    def __init__(self, bands: int = 32, dim: int = 64, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(bands, dim, 5, 2, 2, bias=False), nn.BatchNorm1d(dim), nn.ReLU()),
            *(nn.Conv1d(dim, dim, 3, 2, 1, bias=False), nn.BatchNorm1d(dim), nn.ReLU()),
        )
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.merge = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        t = self.body(x.flatten(1, 2)).transpose(1, 2)
        q, k, v = (p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in self.qkv(self.norm(t)).chunk(3, 2))
        t = t + self.merge(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        scores: Tensor = self.out(self.drop(t.mean(1)))
        return scores


class FeatureInteraction(nn.Module):
    """Embedded features, the sum of all their products in pairs, a small net on it (He & Chua, arXiv:1708.05027).

    Input int64 [n, features] below `buckets`, 0 where there is none; output [n, classes].
    """

    def __init__(self, buckets: int = 8192, dim: int = 16, hidden: int = 32, classes: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(buckets, dim, padding_idx=0)
        self.weight = nn.Embedding(buckets, classes, padding_idx=0)  # the linear term
        nn.init.normal_(self.embed.weight, std=0.1)
        nn.init.zeros_(self.weight.weight)
        self.deep = nn.Sequential(
            *(nn.Dropout(0.3), nn.Linear(dim, hidden), nn.ReLU()),
            *(nn.Dropout(0.3), nn.Linear(hidden, classes)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Class scores."""
        there = (features != 0).unsqueeze(2)
        v = self.embed(features) * there
        pairs = 0.5 * (v.sum(1).square() - v.square().sum(1))
        scores: Tensor = self.deep(pairs) + (self.weight(features) * there).sum(1)
        return scores


class Denoiser(nn.Module):
    """Encoder and decoder with transposed convolutions: a noisy picture [n, 1, h, w] to a clean one; h, w by fours."""

    def __init__(self, widths: tuple[int, int] = (24, 48)) -> None:
        super().__init__()
        a, b = widths
        self.encode = nn.Sequential(
            *(nn.Conv2d(1, a, 3, 2, 1), nn.BatchNorm2d(a), nn.ReLU()),
            *(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()),
            *(nn.Conv2d(b, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU()),
        )
        self.decode = nn.Sequential(
            *(nn.ConvTranspose2d(b, a, 4, 2, 1), nn.BatchNorm2d(a), nn.ReLU()),
            nn.ConvTranspose2d(a, 1, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The picture as it was, values of about 0..1."""
        y: Tensor = self.decode(self.encode(x))
        return y


class CoordinateMLP(nn.Module):
    """A picture as a function of the place: input [n, 2] in -1..1, output [n, values].

    Sines and cosines of the place at doubling frequencies (Tancik et al., arXiv:2006.10739), then layers with tanh.
    """

    def __init__(self, hidden: int = 64, layers: int = 3, octaves: int = 6, values: int = 3) -> None:
        super().__init__()
        self.octaves = octaves
        widths = [4 * octaves, *[hidden] * layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(hidden, values)

    def forward(self, place: Tensor) -> Tensor:
        """The values there."""
        waves = torch.cat([math.pi / 2 * 2**k * place for k in range(self.octaves)], 1)
        y = torch.cat([waves.sin(), waves.cos()], 1)
        for layer in self.layers:
            y = layer(y).tanh()
        values: Tensor = self.out(y)
        return values


class FrameLSTM(nn.Module):
    """An LSTM over the frames of a spectrum, mean over time: input [n, 1, bands, frames], output [n, classes]."""

    def __init__(self, bands: int = 32, hidden: int = 80, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, hidden, batch_first=True)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        states, _ = self.lstm(x.flatten(1, 2).transpose(1, 2))
        scores: Tensor = self.out(self.drop(states.mean(1)))
        return scores


class TemporalShift(nn.Module):
    """Convolutions over pictures of which some channels come from the frame before, some from the next.

    Input [n, frames, 1, h, w], output [n, classes] (Lin et al., arXiv:1811.08383).
    """

    def __init__(self, frames: int = 4, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 8) -> None:
        super().__init__()
        a, b, c = widths
        self.frames = frames
        self.stem = nn.Sequential(nn.Conv2d(1, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(b, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
        self.out = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, of the mean over frames and places."""
        y = self.stem(x.flatten(0, 1))
        for layer in (self.middle, self.last):
            y = layer(shifted(y, self.frames))
        scores: Tensor = self.out(y.mean((2, 3)).unflatten(0, (-1, self.frames)).mean(1))
        return scores


def shifted(x: Tensor, frames: int) -> Tensor:
    """[n * frames, ...]: a quarter of the channels from the next frame, a quarter from the one before, else zeros."""
    x = x.unflatten(0, (-1, frames))
    part = x.shape[2] // 4
    before, after = F.pad(x[:, 1:, :part], (0, 0) * 3 + (0, 1)), F.pad(x[:, :-1, part : 2 * part], (0, 0) * 3 + (1, 0))
    return torch.cat([before, after, x[:, :, 2 * part :]], 2).flatten(0, 1)
