"""Fashion-MNIST: 28x28 grey clothing in MNIST's layout."""

from __future__ import annotations

from pathlib import Path

from secateur.data.download import Remote
from secateur.data.mnist import FILES, load_idx_set
from secateur.data.spec import Spec, Splits

SPEC = Spec(
    name="fashion_mnist",
    shape=(1, 28, 28),
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    mean=(0.0,),  # grey values stay 0..1: the background is exactly zero, as is the padding of a convolution
    std=(1.0,),
    note="55,000 / 5,000 of the training part by a fixed permutation, 10,000 test",
)
REMOTE = Remote(
    hosts=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    hashes={
        FILES[0] + ".gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        FILES[1] + ".gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        FILES[2] + ".gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        FILES[3] + ".gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def load(data_dir: str | Path | None = None, *, batch_size: int = 128, download: bool = False) -> Splits:
    """55,000 training, 5,000 validation and 10,000 test images; see `secateur.data.mnist.load`."""
    return load_idx_set(SPEC, REMOTE, data_dir, batch_size, download)
