"""Eight ordinary networks as people write them, one of each kind: what a first try has to work on.

Nothing here knows of Secateur. Sizes are arguments; the defaults are the larger forms, which
`secateur reproduce first-try` takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down, added to the input where shapes agree (Sandler et al., arXiv:1801.04381)."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        self.adds = stride == 1 and cin == cout
        self.body = nn.Sequential(
            *(nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU6()),
            *(nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid), nn.ReLU6()),
            *(nn.Conv2d(mid, cout, 1, bias=False), nn.BatchNorm2d(cout)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, cin, h, w] -> [n, cout, h / stride, w / stride]."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """MobileNetV2-style: input [n, channels, h, w], output [n, classes]."""

    def __init__(self, channels: int = 1, classes: int = 10, widths: tuple[int, ...] = (16, 24, 32, 64)) -> None:
        super().__init__()
        a, *rest = widths
        self.stem = nn.Sequential(nn.Conv2d(channels, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU6())
        blocks: list[nn.Module] = [InvertedResidual(a, a, 1, 2)]
        for before, after in zip(widths, rest, strict=False):
            blocks += [InvertedResidual(before, after, 2, 4), InvertedResidual(after, after, 1, 4)]
        self.blocks = nn.Sequential(*blocks)
        wide = 4 * widths[-1]
        self.head = nn.Sequential(nn.Conv2d(widths[-1], wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(wide, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        scores: Tensor = self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))
        return scores


class ViT(nn.Module):
    """A vision transformer with torch's own encoder: input [n, 1, side, side], output [n, classes]."""

    def __init__(self, side: int = 28, patch: int = 4, dim: int = 64, depth: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.token.expand(x.shape[0], -1, -1), t], 1) + self.position
        scores: Tensor = self.head(self.norm(self.encoder(t))[:, 0])
        return scores


class GRUClassifier(nn.Module):
    """Embedding and GRU, mean over time: input int64 [n, length], output [n, classes]."""

    def __init__(self, words: int = 4000, dim: int = 32, hidden: int = 64, classes: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(hidden, classes)

    def forward(self, words: Tensor) -> Tensor:
        """Class scores."""
        states, _ = self.gru(self.drop(self.embed(words)))
        scores: Tensor = self.out(self.drop(states.mean(1)))
        return scores


class Conv1dNet(nn.Module):
    """Convolutions over time: input [n, bands, frames] or [n, 1, bands, frames], output [n, classes]."""

    def __init__(self, bands: int = 32, widths: tuple[int, int, int] = (64, 96, 128), classes: int = 10) -> None:
        super().__init__()
        a, b, c = widths
        self.body = nn.Sequential(
            *(nn.Conv1d(bands, a, 3, padding=1), nn.BatchNorm1d(a), nn.ReLU()),
            *(nn.Conv1d(a, b, 3, padding=1), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(2)),
            *(nn.Conv1d(b, c, 3, padding=1), nn.BatchNorm1d(c), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        )
        self.out = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        scores: Tensor = self.out(self.body(x.flatten(1, -2)))
        return scores


def _twice(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU()),
        *(nn.Conv2d(cout, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU()),
    )


class UNet(nn.Module):
    """Encoder, decoder by transposed convolutions, skips (Ronneberger et al., arXiv:1505.04597).

    Input [n, 1, h, w] (h, w multiples of 4), output [n, classes, h, w]: a class for each pixel.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 2) -> None:
        super().__init__()
        a, b, c = widths
        self.down1, self.down2, self.middle = _twice(1, a), _twice(a, b), _twice(b, c)
        self.up2, self.up1 = nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)
        self.merge2, self.merge1 = _twice(2 * b, b), _twice(2 * a, a)
        self.out = nn.Conv2d(a, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of each pixel."""
        high = self.down1(x)
        low = self.down2(F.max_pool2d(high, 2))
        y = self.up2(self.middle(F.max_pool2d(low, 2)))
        y = self.up1(self.merge2(torch.cat([y, low], 1)))
        scores: Tensor = self.out(self.merge1(torch.cat([y, high], 1)))
        return scores


class GCN(nn.Module):
    """Two graph convolutions (Kipf & Welling, arXiv:1609.02907). No batch axis: the whole graph is one input.

    Inputs: features [nodes, features], normalised adjacency [nodes, nodes]; output [nodes, classes].
    """

    def __init__(self, features: int = 1433, hidden: int = 32, classes: int = 7) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Class scores of each node."""
        states = F.relu(adjacency @ self.first(self.drop(x)))
        scores: Tensor = adjacency @ self.second(self.drop(states))
        return scores


class Spike(torch.autograd.Function):
    """A step whose gradient is that of a fast sigmoid (Zenke & Ganguli, arXiv:1705.11146)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        """1 where the potential is above 0."""
        ctx.save_for_backward(v)
        return (v > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        """1 / (1 + 10 |v|)^2 times what comes."""
        (v,) = ctx.saved_tensors
        return torch.as_tensor(grads[0] / (1 + 10 * v.abs()) ** 2)


class SpikingNet(nn.Module):
    """Leaky integrate-and-fire neurons, a few time steps, mean of the outputs: input [n, 1, side, side]."""

    def __init__(
        self, side: int = 28, channels: int = 16, hidden: int = 128, steps: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.hidden = nn.Linear(channels * (side // 2) ** 2, hidden)
        self.out = nn.Linear(hidden, classes)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        current = self.conv(x)
        v1: Tensor | float = 0.0
        v2: Tensor | float = 0.0
        total: Tensor | float = 0.0
        for _ in range(self.steps):
            v1 = 0.5 * v1 + current
            s1 = Spike.apply(v1 - 1.0)
            v1 = v1 * (1 - s1)
            v2 = 0.5 * v2 + self.hidden(F.avg_pool2d(s1, 2).flatten(1))
            s2 = Spike.apply(v2 - 1.0)
            v2 = v2 * (1 - s2)
            total = total + self.out(s2)
        assert isinstance(total, Tensor)
        return total / self.steps


class CharLSTM(nn.Module):
    """The next character: input int64 [n, length], output [n, letters, length], as cross-entropy takes it."""

    def __init__(self, letters: int = 65, dim: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(letters, dim), nn.LSTM(dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, letters)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of each letter at each place."""
        states, _ = self.lstm(self.embed(x))
        scores: Tensor = self.head(states).transpose(1, 2)
        return scores
