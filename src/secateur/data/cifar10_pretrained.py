"""CIFAR-10 for nets that others trained on all 50,000 training images: only clean test images are unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from secateur.data import cifar10
from secateur.data.spec import Splits, tensor_data

SPEC = replace(
    cifar10.SPEC,
    name="cifar10_pretrained",
    note="rows 0-47,999 train, 48,000-49,999 validation (both seen by the pretrained net), test = clean test images",
)


def load(data_dir: str | Path | None = None, *, batch_size: int = 128, download: bool = False) -> Splits:
    """48,000 training and 2,000 validation images, test = the clean test images alone (1,000 in the packed parts).

    A pretrained net has seen the validation images in its training, so that an accuracy there is far too high for
    it; differences after compression remain informative. 1,000 test images decide nothing below about one point.
    """
    (x, y), (x_test, y_test) = cifar10.read_parts(data_dir, download)
    cut = len(x) - cifar10.N_VALID
    return Splits(
        tensor_data(SPEC, x[:cut], y[:cut], batch_size=batch_size, what="train", channels_last=True),
        tensor_data(SPEC, x[cut:], y[cut:], batch_size=500, what="validation", channels_last=True),
        tensor_data(SPEC, x_test, y_test, batch_size=500, what="test", channels_last=True),
        spec=SPEC,
    )
