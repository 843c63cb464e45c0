"""Loaders and nets for one small study of every kind of task, from data that scikit-learn brings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn

from secateur.data import Splits, TensorData, shapes
from secateur.zoo import ordinary, shape_detector


def _parts(x: Tensor, y: Tensor, batch_size: int = 64) -> Splits:
    """Six tenths, two tenths, two tenths, in an order of its own."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    a, b = 6 * len(y) // 10, 8 * len(y) // 10
    return Splits(*(TensorData(x[rows], y[rows], batch_size) for rows in (order[:a], order[a:b], order[b:])))


def diabetes() -> Splits:
    """Ten numbers of a patient [n, 10], the progress of the disease [n, 1], scaled to a deviation of 1."""
    x, y = load_diabetes(return_X_y=True)
    target = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None]
    return _parts(torch.tensor(20 * x, dtype=torch.float32), target, 32)


def letters() -> Splits:
    """The descriptions of scikit-learn's data sets: characters [n, 32], and the same one further."""
    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    text = "".join(p.read_text(errors="ignore") for p in sorted(folder.glob("*.rst")))
    ids = np.frombuffer(re.sub(r"[^a-z ]", "", text.lower())[:20_000].encode(), np.uint8).astype(np.int64)
    ids = torch.tensor(np.where(ids == 32, 0, ids - 96))
    n = (len(ids) - 1) // 32
    return _parts(ids[: 32 * n].reshape(n, 32), ids[1 : 32 * n + 1].reshape(n, 32))


def graph() -> Splits:
    """Digits as nodes, neighbours by distance; a third of the labels in every part."""
    bunch = load_digits(n_class=4)
    x, y = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    a = torch.tensor(kneighbors_graph(bunch.data, 6).toarray(), dtype=torch.float32)
    a = ((a + a.T) > 0).float() + torch.eye(len(y))
    scale = a.sum(1).rsqrt()
    a = scale[:, None] * a * scale
    third = torch.arange(len(y)) % 3
    train, valid, test = ([((x, a), torch.where(third == i, y, -100))] for i in range(3))
    return Splits(train * 10, valid, test)


def rows() -> Splits:
    """Digits as sequences: eight steps of a row of eight pixels each [n, 8, 8]."""
    bunch = load_digits()
    return _parts(torch.tensor(bunch.images, dtype=torch.float32) / 16, torch.tensor(bunch.target))


def pictures() -> Splits:
    """Digits as pictures [n, 1, 8, 8]."""
    splits = rows()
    return Splits(*(TensorData(p.inputs[:, None], p.targets, 64) for p in (splits.train, splits.valid, splits.test)))


def drawn() -> Splits:
    """Shapes and their boxes."""
    return shapes.load(sizes=(256, 16, 32))


def detector() -> nn.Module:
    return shape_detector(0.25)


def regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))


def speller() -> nn.Module:
    return ordinary.CharLSTM(27, 16, 48)


def gcn() -> nn.Module:
    return ordinary.GCN(64, 32, 4)


class Rows(nn.Module):
    """A GRU over rows, the last state counts."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0][:, -1])


def spiking() -> nn.Module:
    return ordinary.SpikingNet(8, 8, 32, steps=2)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))


HERE = "tests.reproduce.small"
# kind -> data, model, epochs, learning rate, and a bar on the test measure, far from an untrained net's and from this
# training's: that ends a little different on every processor
TASKS = {
    "classification": ("pictures", "convolution", 3, 1e-2, 0.5),
    "regression": ("diabetes", "regressor", 3, 1e-2, 0.8),
    "language": ("letters", "speller", 3, 1e-2, 4.4),
    "detection": ("drawn", "detector", 12, 1e-2, 0.02),
    "nodes": ("graph", "gcn", 3, 1e-2, 0.5),
    "sequences": ("rows", "Rows", 3, 1e-2, 0.25),
    "spiking": ("pictures", "spiking", 3, 1e-2, 0.3),
}
