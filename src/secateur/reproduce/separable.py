"""The small dense control for digits: depthwise separable convolutions, a few thousand weights, no pruning."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Separable(nn.Module):
    """conv 5x5 - pool - [3x3 depthwise - 1x1] - pool - [3x3 depthwise - 1x1] - mean over positions - linear.

    Args:
        widths: channels after each of the three convolutions.

    Input [n, 1, 28, 28], output [n, 10]. With widths (16, 40, 80): 5,690 parameters.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 40, 80), classes: int = 10) -> None:
        super().__init__()
        a, b, c = widths
        self.conv1 = nn.Conv2d(1, a, 5)
        self.depth2 = nn.Conv2d(a, a, 3, groups=a, bias=False)
        self.point2 = nn.Conv2d(a, b, 1)
        self.depth3 = nn.Conv2d(b, b, 3, groups=b, bias=False)
        self.point3 = nn.Conv2d(b, c, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = torch.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.max_pool2d(torch.relu(self.point2(self.depth2(x))), 2)
        x = torch.relu(self.point3(self.depth3(x)))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def build() -> Separable:
    """The control of `lenet5-mnist`."""
    return Separable()


def small() -> Separable:
    """3,900 weights: what fits where `build` fits, at four bits instead of under three."""
    return Separable((14, 32, 64))
