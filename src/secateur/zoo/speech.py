"""A small net for spoken digits: convolutions over the picture of a spectrum."""

from __future__ import annotations

from torch import Tensor, nn

from secateur.zoo.resnet import narrow


class SpeechCNN(nn.Module):
    """Four times 3x3 convolution, batch norm, ReLU, with max pools between; mean over positions; one linear layer.

    Args:
        channels: after each convolution.

    The first layer takes every second band and frame. Dropout before the last layer: the set is small.
    """

    def __init__(self, channels: tuple[int, int, int, int], n_classes: int = 10) -> None:
        super().__init__()
        a, b, c, d = channels
        self.features = nn.Sequential(
            *(*_layer(1, a, stride=2), *_layer(a, b), nn.MaxPool2d(2)),
            *(*_layer(b, c), nn.MaxPool2d(2), *_layer(c, d)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3)),
        )
        self.linear = nn.Linear(d, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 1, bands, frames] -> logits [N, n_classes]."""
        scores: Tensor = self.linear(self.features(x))
        return scores


def _layer(n_in: int, n_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


def speech_cnn(width: float = 1.0) -> SpeechCNN:
    """For the spoken digits of `fsdd`: input float32 [N, 1, 32, 64]; 60,688 weights at width 1.

    Channels 16, 32, 64, 64 times `width`, in multiples of 4.
    """
    a, b, c = narrow(16, width), narrow(32, width), narrow(64, width)
    return SpeechCNN((a, b, c, c))
