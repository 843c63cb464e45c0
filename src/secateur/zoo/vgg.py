"""VGG-16 for CIFAR-10: thirteen 3x3 convolutions with batch normalisation and one linear layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

# Channels per convolution; "M" = 2x2 max-pooling (Simonyan & Zisserman, configuration D).
_PLAN: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def vgg16_cifar() -> nn.Sequential:
    """VGG-16 with batch norm for 32x32 RGB images: input float32 [N, 3, 32, 32], 14,715,584 weights.

    The three fully connected layers of the ImageNet net are one 512x10 layer here, as in all CIFAR pruning papers.
    Convolutions carry no bias (the norm behind each has one).

    Reference: Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556, configuration D.
    """
    layers: list[nn.Module] = []
    channels = 3
    for item in _PLAN:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1, bias=False), nn.BatchNorm2d(item), nn.ReLU()]
            channels = item
    net = nn.Sequential(
        OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=nn.Linear(channels, 10))
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
