"""Reference models. `secateur.zoo:lenet5` in a recipe, `secateur.zoo.lenet5()` in Python.

`MODELS` lists those that classify; `shape_detector` finds boxes and has a loss of its own (examples/detector.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from secateur.zoo.detector import shape_detector
from secateur.zoo.lenet import digits_cnn, lenet5, lenet300
from secateur.zoo.resnet import fashion_resnet, resnet20, resnet56
from secateur.zoo.speech import speech_cnn
from secateur.zoo.vgg import vgg16_cifar
from secateur.zoo.weights import load_weights


@dataclass(frozen=True)
class Entry:
    """One reference model: how to build it, the shape of one input (without the batch), the data it is for.

    `n_weights` counts convolution and linear weights only: no biases, no norms. The literature counts so.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    data: str
    n_weights: int
    pretrained: bool
    summary: str


MODELS: dict[str, Entry] = {
    e.name: e
    for e in (
        Entry("digits_cnn", digits_cnn, (1, 8, 8), "digits", 159_264, False, "3 convolutions, 2 linear layers"),
        Entry("fashion_resnet", fashion_resnet, (1, 28, 28), "fashion_mnist", 167_064, False, "3 residual blocks"),
        Entry("lenet300", lenet300, (1, 28, 28), "mnist", 266_200, False, "LeNet-300-100, fully connected"),
        Entry("lenet5", lenet5, (1, 28, 28), "mnist", 430_500, False, "LeNet-5, Caffe's sizes"),
        Entry("resnet20", resnet20, (3, 32, 32), "cifar10", 268_336, True, "ResNet-20, parameter-free shortcuts"),
        Entry("resnet56", resnet56, (3, 32, 32), "cifar10", 848_944, True, "ResNet-56, parameter-free shortcuts"),
        Entry("speech_cnn", speech_cnn, (1, 32, 64), "fsdd", 60_688, False, "4 convolutions over a spectrum"),
        Entry(
            "vgg16_cifar", vgg16_cifar, (3, 32, 32), "cifar10", 14_715_584, False, "VGG-16, batch norm, one classifier"
        ),
    )
}

__all__ = [
    "MODELS",
    "Entry",
    "digits_cnn",
    "fashion_resnet",
    "lenet5",
    "lenet300",
    "load_weights",
    "resnet20",
    "resnet56",
    "shape_detector",
    "speech_cnn",
    "vgg16_cifar",
]
