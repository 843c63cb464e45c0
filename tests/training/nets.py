"""Tiny nets and data whose answer is known, seconds each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.types import Member, Site


class MLP(nn.Module):
    def __init__(self, n_in: int = 8, width: int = 12, n_out: int = 3) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(n_in, width), nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def mlp(seed: int = 0) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP()


def blobs(n: int = 256, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes that only two of the eight inputs tell apart."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=g)
    x = torch.randn(n, 8, generator=g) * 0.5
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    x[:, :2] += centres[y]
    return x, y


def batches(n: int = 256, size: int = 32, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    x, y = blobs(n, seed)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, n, size)]


def weight_sites(model: nn.Module) -> tuple[Site, ...]:
    return tuple(Site(n, "linear", tuple(p.shape), (Member(n),)) for n, p in model.named_parameters() if p.dim() == 2)
