"""Families of networks on pictures, in small, written as their usual implementations write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def cba(cin: int, cout: int, k: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU):
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Head(nn.Sequential):
    """Mean over positions, one linear layer."""

    def __init__(self, n: int, classes: int = 5) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, classes))


class Squeeze(nn.Module):
    """Squeeze and excitation by 1x1 convolutions (Hu et al., arXiv:1709.01507)."""

    def __init__(self, n: int, mid: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool, self.fc1, self.fc2 = nn.AdaptiveAvgPool2d(1), nn.Conv2d(n, mid, 1), nn.Conv2d(mid, n, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.fc2(F.relu(self.fc1(self.avgpool(x))))) * x


class Inverted(nn.Module):
    """1x1 up, depthwise, squeeze, 1x1 down: the block of MobileNetV2 and V3 and of EfficientNet."""

    def __init__(self, cin: int, cout: int, stride: int, act: type[nn.Module], gate: type[nn.Module] | None) -> None:
        super().__init__()
        mid = 3 * cin
        squeeze = [Squeeze(mid, 4, gate)] if gate else []
        self.block = nn.Sequential(
            cba(cin, mid, 1, act=act), cba(mid, mid, 3, stride, mid, act), *squeeze, cba(mid, cout, 1, act=None)
        )
        self.adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.adds else self.block(x)


def mobile(act: type[nn.Module], gate: type[nn.Module] | None) -> nn.Module:
    """A stem, two stages of inverted blocks, a wide last convolution."""
    blocks = [Inverted(8, 8, 1, act, gate), Inverted(8, 12, 2, act, gate), Inverted(12, 12, 1, act, gate)]
    return nn.Sequential(cba(3, 8, act=act), *blocks, cba(12, 24, 1, act=act), Head(24))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    x = x.view(n, groups, c // groups, h, w)
    return torch.transpose(x, 1, 2).contiguous().view(n, c, h, w)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 (Ma et al., arXiv:1807.11164): split, one half through, joined and shuffled."""

    def __init__(self, n: int, stride: int) -> None:
        super().__init__()
        half, self.stride = n // 2, stride
        cin = n if stride > 1 else half
        side = [cba(cin, cin, 3, 2, cin, None), cba(cin, half, 1)] if stride > 1 else []
        self.branch1 = nn.Sequential(*side)
        self.branch2 = nn.Sequential(cba(cin, half, 1), cba(half, half, 3, stride, half, None), cba(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleV1(nn.Module):
    """ShuffleNet (Zhang et al., arXiv:1707.01083): grouped 1x1 convolutions, a shuffle between them."""

    def __init__(self, n: int, groups: int = 3) -> None:
        super().__init__()
        self.first, self.depth = cba(n, n, 1, groups=groups), cba(n, n, groups=n, act=None)
        self.last, self.shuffle = cba(n, n, 1, groups=groups, act=None), nn.ChannelShuffle(groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.last(self.depth(self.shuffle(self.first(x)))))


class DenseLayer(nn.Module):
    """Norm and activation first, joined behind all that came before (Huang et al., arXiv:1608.06993)."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


def densenet() -> nn.Module:
    """Two dense blocks with a transition."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), DenseLayer(8, 4), DenseLayer(12, 4)),
        *(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2), DenseLayer(8, 4)),
        *(nn.BatchNorm2d(12), nn.ReLU(), Head(12)),
    )


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al., arXiv:1409.4842)."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.b1, self.b2 = cba(cin, 4, 1), nn.Sequential(cba(cin, 4, 1), cba(4, 6))
        self.b3 = nn.Sequential(cba(cin, 4, 1), cba(4, 4), cba(4, 4))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), cba(cin, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, layer norm, two linear layers, a learned scale (Liu et al., arXiv:2201.03545)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(n, n, 7, padding=3, groups=n), nn.LayerNorm(n, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(n, 4 * n), nn.GELU(), nn.Linear(4 * n, n)
        self.layer_scale = nn.Parameter(torch.rand(n, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y))).permute(0, 3, 1, 2)
        return x + self.layer_scale * y


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, a projected shortcut (Xie et al., arXiv:1611.05431)."""

    def __init__(self, cin: int, cout: int, groups: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = cba(cin, cout, 1), cba(cout, cout, 3, stride, groups)
        self.c, self.down = cba(cout, cout, 1, act=None), cba(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(self.b(self.a(x))) + self.down(x))


class UNet(nn.Module):
    """Transposed convolutions and skips (Ronneberger et al., arXiv:1505.04597)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = cba(3, 6), cba(6, 8), cba(8, 12)
        self.up2, self.up1 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.merge2, self.merge1, self.out = cba(16, 8), cba(12, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down1(x)
        low = self.down2(F.max_pool2d(high, 2))
        y = self.merge2(torch.cat([self.up2(self.middle(F.max_pool2d(low, 2))), low], 1))
        return self.out(self.merge1(torch.cat([self.up1(y), high], 1)))


class ResUNet(nn.Module):
    """As diffusion models have them: group norm, a time signal added, nearest upsampling, instance norm, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n1, self.time = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.Linear(4, 8)
        self.down, self.n2 = nn.Conv2d(8, 12, 3, 2, 1), nn.InstanceNorm2d(12, affine=True)
        self.act, self.up = nn.PReLU(12), nn.Conv2d(12, 8, 3, padding=1)
        self.merge, self.n3, self.out = nn.Conv2d(16, 6, 1), nn.GroupNorm(1, 6), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        high = F.silu(self.n1(self.a(x))) + self.time(t)[:, :, None, None]
        y = F.interpolate(self.up(self.act(self.n2(self.down(high)))), scale_factor=2.0, mode="nearest")
        return self.out(F.silu(self.n3(self.merge(torch.cat([y, high], 1)))))


class Generator(nn.Module):
    """DCGAN's transposed convolutions (arXiv:1511.06434), the last doubling by sub-pixels (arXiv:1609.05158)."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 12 * 4 * 4)
        self.up1, self.n1 = nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.up2, self.n2 = nn.ConvTranspose2d(8, 8, 3, 1, 1, groups=2), nn.BatchNorm2d(8)
        self.sub, self.shuffle, self.out = nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(4, 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        y = F.relu(self.project(z)).unflatten(1, (-1, 4, 4))
        y = F.leaky_relu(self.n2(self.up2(F.relu(self.n1(self.up1(y))))), 0.2)
        return torch.tanh(self.out(F.relu(self.shuffle(self.sub(y)))))


class Multiplier(nn.Module):
    """Depthwise with two outputs an input, a gate by glu, two heads, one of them shared by two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.point = cba(3, 6), nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.Conv2d(12, 16, 1)
        self.shared, self.box, self.score = cba(8, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.glu(self.point(F.relu(self.wide(self.stem(x)))), 1)
        scales = [self.shared(y), self.shared(F.max_pool2d(y, 2))]
        boxes = torch.cat([self.box(s).flatten(2) for s in scales], 2)
        return boxes, torch.cat([self.score(s).flatten(2) for s in scales], 2)


def pictures() -> dict[str, tuple[nn.Module, object]]:
    """Name -> (net, example inputs of batch 2)."""
    x = torch.randn(2, 3, 16, 16)
    return {
        "MobileNetV2": (mobile(nn.ReLU6, None), x),
        "MobileNetV3": (mobile(nn.Hardswish, nn.Hardsigmoid), x),
        "EfficientNet": (mobile(nn.SiLU, nn.Sigmoid), x),
        "ShuffleNet": (nn.Sequential(cba(3, 18), ShuffleV1(18), ShuffleV1(18), Head(18)), x),
        "ShuffleNetV2": (
            nn.Sequential(cba(3, 16), ShuffleUnit(16, 2), ShuffleUnit(16, 1), cba(16, 16, 1), Head(16)),
            x,
        ),
        "DenseNet": (densenet(), x),
        "Inception": (nn.Sequential(cba(3, 8), Inception(8), nn.MaxPool2d(2), Inception(18), Head(18)), x),
        "ConvNeXt": (
            nn.Sequential(
                *(nn.Conv2d(3, 8, 2, 2), LayerNorm2d(8), ConvNeXtBlock(8)),
                *(LayerNorm2d(8), nn.Conv2d(8, 12, 2, 2), ConvNeXtBlock(12)),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 5)),
            ),
            x,
        ),
        "ResNeXt": (nn.Sequential(cba(3, 8), ResNeXtBlock(8, 16, 4, 1), ResNeXtBlock(16, 16, 4, 2), Head(16)), x),
        "U-Net": (UNet(), x),
        "diffusion U-Net": (ResUNet(), (x, torch.randn(2, 4))),
        "GAN generator": (Generator(), torch.randn(2, 6)),
        "two heads": (Multiplier(), x),
    }
