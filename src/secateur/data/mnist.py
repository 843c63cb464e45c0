"""MNIST: 28x28 grey digits, 60,000 + 10,000, from four IDX files (plain, .gz or .xz)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data.compressed import find
from secateur.data.download import Remote
from secateur.data.idx import read_idx
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, tensor_data
from secateur.errors import FormatError

SPEC = Spec(
    name="mnist",
    shape=(1, 28, 28),
    classes=tuple("0123456789"),
    mean=(0.0,),  # grey values stay 0..1: the background is exactly zero, as is the padding of a convolution
    std=(1.0,),
    note="55,000 / 5,000 of the training part by a fixed permutation, 10,000 test",
)
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
REMOTE = Remote(
    hosts=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    hashes={
        FILES[0] + ".gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        FILES[1] + ".gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        FILES[2] + ".gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        FILES[3] + ".gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
)
_N_VALID = 5000


def load(data_dir: str | Path | None = None, *, batch_size: int = 128, download: bool = False) -> Splits:
    """55,000 training, 5,000 validation, 10,000 test images, grey values 0..1.

    Read from `data_dir` (or SECATEUR_DATA), the folder itself or its `mnist/`; else, with `download`, fetched by name
    with checked hashes. The validation rows come from one fixed permutation of the training part, the same on every
    machine and for every seed.
    """
    return load_idx_set(SPEC, REMOTE, data_dir, batch_size, download)


def load_idx_set(spec: Spec, remote: Remote, data_dir: str | Path | None, batch_size: int, download: bool) -> Splits:
    """Four IDX files in MNIST's layout as splits."""
    folder = open_set(spec.name, data_dir, lambda f: find(f, FILES[0]) is not None, remote, download)
    paths = [find(folder, stem) for stem in FILES]
    missing = [stem for stem, path in zip(FILES, paths, strict=True) if path is None]
    if missing:
        raise FormatError(
            f"{spec.name}: {folder} lacks {', '.join(missing)} (plain, .gz or .xz); copy all four files there"
        )
    size = spec.shape[1:]
    x, y, x_test, y_test = (
        read_idx(path, (None, *size) if "images" in path.name else (None,)) for path in paths if path is not None
    )
    train, valid = fixed_split(len(x), _N_VALID, spec.name)
    return Splits(
        tensor_data(spec, x[train], _rows(y, len(x), train, spec), batch_size=batch_size, what="train"),
        tensor_data(spec, x[valid], _rows(y, len(x), valid, spec), batch_size=1000, what="validation"),
        tensor_data(spec, x_test, y_test, batch_size=1000, what="test"),
        spec=spec,
    )


def fixed_split(n: int, n_valid: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, ascending, by one permutation.

    RandomState because NumPy promises its stream for ever (NEP 19), which it does not for the newer generators.
    """
    if n <= n_valid:
        raise FormatError(f"{name}: {n} training examples; more than the {n_valid} for validation are needed")
    shuffled = np.random.RandomState(2026).permutation(n)
    return np.sort(shuffled[n_valid:]), np.sort(shuffled[:n_valid])


def _rows(labels: NDArray[np.uint8], n: int, rows: NDArray[np.int64], spec: Spec) -> NDArray[np.uint8]:
    if len(labels) != n:
        raise FormatError(f"{spec.name}: {n} training images but {len(labels)} labels; every image needs one label")
    return labels[rows]
