"""A small detector of the YOLO kind: split-and-join blocks, pooled pyramid, upsampled neck, split heads, no anchors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.zoo.resnet import narrow

STRIDES = (4, 8)  # pixels between neighbouring cells, on the two scales


def _layer(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


class Split(nn.Module):
    """1x1, split in two; one half through a residual pair of 3x3; all three joined, 1x1 (C2f of YOLOv8)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        half = n_out // 2
        self.first, self.last = _layer(n_in, n_out, 1), _layer(3 * half, n_out, 1)
        self.inner = nn.Sequential(_layer(half, half), _layer(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """[N, n_in, H, W] -> [N, n_out, H, W]."""
        left, right = self.first(x).chunk(2, 1)
        y: Tensor = self.last(torch.cat([left, right, right + self.inner(right)], 1))
        return y


class Pyramid(nn.Module):
    """Spatial pyramid pooling: three max pools in a row, all joined (He et al., arXiv:1406.4729)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.last, self.pool = _layer(n, n // 2, 1), _layer(2 * n, n, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, n, H, W] -> [N, n, H, W]."""
        a = self.first(x)
        b = self.pool(a)
        c = self.pool(b)
        y: Tensor = self.last(torch.cat([a, b, c, self.pool(c)], 1))
        return y


class Heads(nn.Module):
    """Boxes and classes from branches of their own (Ge et al., arXiv:2107.08430)."""

    def __init__(self, n: int, n_classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(_layer(n, n), nn.Conv2d(n, 4, 1))
        last = nn.Conv2d(n, n_classes, 1)
        self.score = nn.Sequential(_layer(n, n), last)
        last.bias = nn.Parameter(torch.full((n_classes,), -3.0))  # most cells hold nothing

    def forward(self, x: Tensor) -> Tensor:
        """[N, n, H, W] -> [N, H * W, 4 + n_classes]."""
        return torch.cat([self.box(x), self.score(x)], 1).flatten(2).transpose(1, 2)


class ShapeDetector(nn.Module):
    """Backbone to strides 4 and 8, pyramid pooling, neck from coarse to fine, split heads on both.

    Args:
        channels: at strides 2, 4 and 8.
    """

    def __init__(self, channels: tuple[int, int, int], n_classes: int = 3) -> None:
        super().__init__()
        a, b, c = channels
        self.stem, self.fine = _layer(3, a, stride=2), nn.Sequential(_layer(a, b, stride=2), Split(b, b))
        self.coarse = nn.Sequential(_layer(b, c, stride=2), Split(c, c), Pyramid(c))
        self.up, self.neck = nn.Upsample(scale_factor=2.0, mode="nearest"), Split(b + c, b)
        self.heads = nn.ModuleList([Heads(b, n_classes), Heads(c, n_classes)])

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 3, H, W], sides multiples of 8 -> [N, cells, 4 + n_classes].

        Cells row by row, the fine scale first. Of each: what `softplus` turns into the distances of the box's left,
        top, right and bottom from the cell's middle, in strides; and a logit for every class.
        """
        fine = self.fine(self.stem(x))
        coarse = self.coarse(fine)
        fine = self.neck(torch.cat([self.up(coarse), fine], 1))
        return torch.cat([self.heads[0](fine), self.heads[1](coarse)], 1)


def cells(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of the detector's cells for pictures of that size: middles [cells, 2] as x, y in pixels, and strides [cells]."""
    middles, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        middles.append((torch.stack([x.flatten(), y.flatten()], 1) + 0.5) * stride)
        strides.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(middles), torch.cat(strides)


def shape_detector(width: float = 1.0) -> ShapeDetector:
    """For the pictures of `data.shapes`: input float32 [N, 3, 64, 64], output [N, 320, 7].

    Channels 16, 32, 64 times `width`, in multiples of 4.
    """
    return ShapeDetector((narrow(16, width), narrow(32, width), narrow(64, width)))
