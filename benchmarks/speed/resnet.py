"""A ResNet-50 of 224x224 pixels and two pictures of noise, for recipes: `resnet:resnet50`, `resnet:pictures`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut."""

    def __init__(self, n_in: int, inner: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * inner
        self.conv1, self.bn1 = nn.Conv2d(n_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        wider = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.downsample = wider if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def resnet50() -> nn.Module:
    """He et al., CVPR 2016, arXiv:1512.03385, table 1; strides in the 3x3 layers, as all use it. Weights are random."""
    torch.manual_seed(0)
    blocks, width = [], 64
    for stage, (inner, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for i in range(depth):
            blocks.append(Bottleneck(width, inner, 2 if stage and not i else 1))
            width = 4 * inner
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def pictures(batch_size: int | None = None) -> tuple[Any, Any]:
    """Training and validation part: one batch of two."""
    torch.manual_seed(1)
    batch = [(torch.randn(2, 3, 224, 224), torch.tensor([1, 2]))]
    return batch, batch
