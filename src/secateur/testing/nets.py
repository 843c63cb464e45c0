"""Tiny nets that together meet what the rooms must handle; a few hundred weights each, no training needed.

Every function takes a seed and returns an `nn.Module` in eval mode with fixed weights; `EXAMPLES` gives inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _Residual(nn.Module):
    """conv-bn-relu, a residual block, pooling, linear: a channel group that couples three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn0(self.stem(x)))
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.fc(torch.relu(x + y).mean(dim=(2, 3)))
        return out


class _TwoInputs(nn.Module):
    """Two branches that are concatenated; a regression output."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(5, 8), nn.Linear(3, 8), nn.Linear(16, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([torch.relu(self.left(a)), torch.relu(self.right(b))], dim=1))
        return out


def mlp(seed: int = 0) -> nn.Module:
    """8 - 16 - 12 - 3 with ReLU: a chain of linear layers."""
    return _ready(
        seed, lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    )


def conv(seed: int = 0) -> nn.Module:
    """Two convolutions with pooling, a flatten, a linear layer: LeNet in miniature."""
    return _ready(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        ),
    )


def residual(seed: int = 0) -> nn.Module:
    """A residual block with batch norm (running statistics away from 0 and 1)."""
    return _ready(seed, _Residual)


def two_inputs(seed: int = 0) -> nn.Module:
    """Two inputs, one real output."""
    return _ready(seed, _TwoInputs)


NETS: dict[str, Callable[[int], nn.Module]] = {"mlp": mlp, "conv": conv, "residual": residual, "two_inputs": two_inputs}


def example(name: str, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Example inputs of a net in `NETS`."""
    g = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "mlp": ((8,),),
        "conv": ((1, 8, 8),),
        "residual": ((1, 8, 8),),
        "two_inputs": ((5,), (3,)),
    }
    return tuple(torch.randn(batch, *shape, generator=g) for shape in shapes[name])


def _ready(seed: int, build: Callable[[], Any]) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=g) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=g) + 0.5)
    return net.eval()
