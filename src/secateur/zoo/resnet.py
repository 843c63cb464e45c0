"""ResNet-20 and ResNet-56 for CIFAR-10 with parameter-free shortcuts, their pretrained weights, and a small one.

Reference: He et al., CVPR 2016, arXiv:1512.03385, section 4.2.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from secateur.zoo.weights import load_weights, weights_file


class Shortcut(nn.Module):
    """Option A: every second pixel, and a quarter of the new width in zero channels on each side.

    Pooling over 1x1 windows with stride 2 takes every second pixel exactly; it is one node in an exported graph
    where slicing would be two with four constants each. The padding is a layer (of the kind whose third-last axis
    is that of the channels), so that removing channels can change its widths.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.subsample = nn.AvgPool2d(1, stride)
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, extra, extra), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + 2 * extra, H / stride, W / stride]."""
        return self.pad(self.subsample(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut; the channels between them are free to go."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = Shortcut((n_out - n_in) // 2, stride) if n_in != n_out else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Stem, three stages of `blocks` basic blocks, global average, one linear layer.

    Args:
        channels: of the stem and the three stages' outputs; the stem has as many as the first.
        n_in: channels of the input.
        halved: a max pool behind the stem, as in the nets for large images.
    """

    def __init__(
        self,
        blocks: int,
        n_classes: int = 10,
        channels: tuple[int, int, int] = (16, 32, 64),
        n_in: int = 3,
        halved: bool = False,
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.conv1 = nn.Conv2d(n_in, a, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.relu = nn.ReLU()
        self.halve = nn.MaxPool2d(2) if halved else nn.Identity()
        self.layer1 = _stage(a, a, 1, blocks)
        self.layer2 = _stage(a, b, 2, blocks)
        self.layer3 = _stage(b, c, 2, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(c, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, n_in, H, W] -> logits [N, n_classes]."""
        x = self.halve(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))  # type: ignore[no-any-return]


def _stage(n_in: int, n_out: int, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(Block(n_in, n_out, stride), *(Block(n_out, n_out, 1) for _ in range(blocks - 1)))


def resnet20(pretrained: bool = False, data_dir: str | Path | None = None, width: float = 1.0) -> ResNet:
    """ResNet-20 for CIFAR-10: input float32 [N, 3, 32, 32], 268,336 weights in convolutions and the linear layer.

    `pretrained` loads `weights/resnet20.safetensors` from `data_dir` (or SECATEUR_DATA): 91.73 % published.
    `width` multiplies all channels (`narrow`): the dense control of pruned nets.
    Raises UsageError where that file is absent or of another width, FormatError where it is damaged.
    """
    return _build("resnet20", 3, pretrained, data_dir, width)


def resnet56(pretrained: bool = False, data_dir: str | Path | None = None) -> ResNet:
    """ResNet-56 for CIFAR-10: input float32 [N, 3, 32, 32], 848,944 weights in convolutions and the linear layer.

    `pretrained` loads `weights/resnet56.safetensors` from `data_dir` (or SECATEUR_DATA): 93.39 % published.
    Raises UsageError where that file is absent, FormatError where it is damaged.
    """
    return _build("resnet56", 9, pretrained, data_dir, 1.0)


def fashion_resnet(width: float = 1.0) -> ResNet:
    """A residual net of six 3x3 layers behind the stem for Fashion-MNIST: input float32 [N, 1, 28, 28].

    Channels 24, 48, 96 times `width`; one block a stage, a max pool behind the stem. 167,064 weights at width 1.
    """
    return ResNet(1, channels=(narrow(24, width), narrow(48, width), narrow(96, width)), n_in=1, halved=True)


def narrow(channels: int, width: float) -> int:
    """`width` times the channels, as the nearest multiple of 4 above 0: the kernels' vectors are filled.

    >>> [narrow(c, 0.35) for c in (16, 32, 64)]
    [4, 12, 24]
    """
    return max(4, 4 * round(channels * width / 4))


def _build(name: str, blocks: int, pretrained: bool, data_dir: str | Path | None, width: float) -> ResNet:
    net = ResNet(blocks, channels=(narrow(16, width), narrow(32, width), narrow(64, width)))
    if pretrained:
        load_weights(net, weights_file(name, data_dir))
    return net
