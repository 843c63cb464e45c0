"""The data of the study `families`, as its file names them: what the plain sets do not give by themselves."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from secateur import data
from secateur.data import cifar10, sst2
from secateur.data.spec import Spec, Splits
from secateur.data.tensors import TensorData

BUCKETS = 8192  # words are told apart by a hash below it
FRAMES, STEP = 4, 2  # of a moving picture; pixels a frame
NOISE = 0.3  # standard deviation; grey values are 0..1
_TRAIN, _VALID, _TEST = 3_000, 1_000, 2_000  # pictures that a small study takes

Folder = str | Path | None


def fashion(data_dir: Folder = None) -> Splits:
    """Fashion-MNIST: the first 6,000 training and 1,000 validation pictures, and the whole test part."""
    full = data.load("fashion_mnist", data_dir, batch_size=64)
    return replace(full, train=_of(full.train).head(2 * _TRAIN), valid=_of(full.valid).head(_VALID))


def noisy(data_dir: Folder = None) -> Splits:
    """Fashion-MNIST under normal noise [n, 1, 28, 28]; the clean picture is the target. 3,000 / 1,000 / 2,000."""

    def change(part: TensorData, seed: int) -> TensorData:
        x = _pictures(part)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        return TensorData(x + NOISE * noise, x, part.batch_size)

    train, valid, test = (change(part, seed) for seed, part in enumerate(_small(data_dir)))
    return Splits(train, valid, test)


def moving(data_dir: Folder = None) -> Splits:
    """A Fashion-MNIST picture that moves [n, 4, 1, 28, 28], and in which of eight directions. 3,000 / 1,000 / 2,000.

    Two pixels a frame, up or down as often as straight on; what leaves one side comes back on the other. No frame
    alone tells the direction.
    """
    ways = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]

    def change(part: TensorData, seed: int) -> TensorData:
        x = _pictures(part)
        y = torch.randint(len(ways), (len(x),), generator=torch.Generator().manual_seed(seed))
        frames = x.new_empty(len(x), FRAMES, *x.shape[1:])
        for way, (dy, dx) in enumerate(ways):
            for t in range(FRAMES):
                frames[y == way, t] = x[y == way].roll((STEP * t * dy, STEP * t * dx), (2, 3))
        return TensorData(frames, y, part.batch_size)

    train, valid, test = (change(part, seed) for seed, part in enumerate(_small(data_dir)))
    return Splits(train, valid, test)


def hashed(data_dir: Folder = None) -> Splits:
    """SST-2 without a vocabulary: words and pairs of neighbours by the CRC-32 of their letters, int64 [n, 48], 0: none.

    The trick of Weinberger et al., arXiv:0902.2206. The set's own parts.
    """
    parts = sst2.sentences(data_dir)
    length = 48

    def coded(words: list[str]) -> list[int]:
        grams = words + [f"{a} {b}" for a, b in pairwise(words)]
        found = [1 + zlib.crc32(gram.encode()) % (BUCKETS - 1) for gram in grams][:length]
        return found + [0] * (length - len(found))

    train, valid, test = (
        TensorData(torch.tensor([coded(w) for w, _ in part]), torch.tensor([y for _, y in part]), size)
        for part, size in zip(parts, (64, 872, 1821), strict=True)
    )
    return Splits(train, valid, test)


def picture(data_dir: Folder = None) -> Splits:
    """One picture of 64x64: the first four photographs of CIFAR-10's test part, two by two, values 0..1.

    Inputs places [4096, 2] in -1..1, x then y; targets red, green and blue there. All three parts are the whole
    picture: the net's work is to hold it, nothing is left to guess.
    """
    four = torch.from_numpy(cifar10.read_test(data_dir, download=False)[0][:4]).float() / 255
    sheet = four.view(2, 2, 32, 32, 3).permute(0, 2, 1, 3, 4).reshape(64, 64, 3)
    side = torch.linspace(-1, 1, 64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    places, values = torch.stack([x.flatten(), y.flatten()], 1), sheet.reshape(-1, 3).contiguous()
    train, held = TensorData(places, values, 256), TensorData(places, values, 4096)
    return Splits(train, held, held, Spec("picture", (2,), (), (0.0,), (1.0,), 1.0))


def _small(data_dir: Folder) -> list[TensorData]:
    full = data.load("fashion_mnist", data_dir, batch_size=64)
    parts = zip((full.train, full.valid, full.test), (_TRAIN, _VALID, _TEST), strict=True)
    return [_of(part).head(n) for part, n in parts]


def _of(part: object) -> TensorData:
    assert isinstance(part, TensorData)
    return part


def _pictures(part: TensorData) -> Tensor:
    assert isinstance(part.inputs, Tensor)
    return part.inputs if part.permutation is None else part.inputs[part.permutation]
