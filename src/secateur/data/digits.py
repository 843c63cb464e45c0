"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, bundled with that package, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secateur.data.spec import Spec, Splits, tensor_data
from secateur.errors import MissingExtraError

SPEC = Spec(
    name="digits",
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    mean=(0.0,),  # grey values stay 0..1: the background is exactly zero, as is the padding of a convolution
    std=(1.0,),
    full_scale=16.0,
    note="fixed stratified split 1,097 / 300 / 400",
)
_SIZES = (1097, 300, 400)  # train, validation, test


def load(data_dir: str | Path | None = None, *, batch_size: int = 64, download: bool = False) -> Splits:
    """1,097 training, 300 validation and 400 test images, every class in the same share (within one image) in each.

    The split is fixed: within a class, the image at rank r of n goes where r/n falls after a fixed permutation.
    `data_dir` and `download` are accepted as by the other loaders and not used.
    Source: UCI "Optical Recognition of Handwritten Digits" test part, as bundled by scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("digits: scikit-learn is not installed; pip install 'secateur[digits]'") from error
    bunch = load_digits()
    images, labels = bunch.images.astype(np.float32), bunch.target.astype(np.int64)
    rows = _stratified(labels)
    train, valid, test = (
        tensor_data(SPEC, images[r], labels[r], batch_size=batch_size, what=what)
        for r, what in zip(rows, ("train", "validation", "test"), strict=True)
    )
    return Splits(train, valid, test, SPEC)


def _stratified(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Rows of the three parts, ascending. Within a class, images are spread evenly; ties go by a fixed shuffle."""
    shuffle = np.random.RandomState(2026).permutation(len(labels))
    position = np.empty(len(labels))
    for c in np.unique(labels):
        mine = shuffle[labels[shuffle] == c]
        position[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    order = shuffle[np.argsort(position[shuffle], kind="stable")]
    cuts = np.cumsum(_SIZES)[:-1]
    return [np.sort(part) for part in np.split(order, cuts)]
