"""The eight ordinary networks in small, with real data that scikit-learn brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from secateur.reproduce.first_try import fit
from secateur.zoo import ordinary as o


@dataclass(frozen=True)
class Case:
    """One network: how it is built, its (train, valid), and how long and how fast it is trained densely."""

    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Any, Any]]
    epochs: int
    lr: float

    def trained(self) -> nn.Module:
        """The dense net, in evaluation mode; the same at every call."""
        torch.manual_seed(1)
        net = self.build()
        fit(net, self.data()[0], self.epochs, self.lr)
        return net


def digits() -> tuple[Tensor, Tensor]:
    """1,797 pictures [n, 1, 8, 8] in 0..1 in a fixed order of their own, and their classes."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return x[order], torch.tensor(bunch.target)[order]


def loaders(x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """Ordinary DataLoaders: 1,400 examples for training, the rest for validation."""
    train, valid = TensorDataset(x[:1400], y[:1400]), TensorDataset(x[1400:], y[1400:])
    shuffled = DataLoader(train, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0))
    return shuffled, DataLoader(valid, batch_size=256)


def pictures() -> tuple[Any, Any]:
    """Digits as pictures."""
    return loaders(*digits())


def rows() -> tuple[Any, Any]:
    """Digits as eight bands over eight steps of time."""
    x, y = digits()
    return loaders(x[:, 0], y)


def sentences() -> tuple[Any, Any]:
    """Digits as sentences of 16 words: which pixels of a 2x2 patch are dark, and where it stands; 256 words."""
    x, y = digits()
    bits = F.unfold((x > 0.4).float(), 2, stride=2) * torch.tensor([1.0, 2, 4, 8])[:, None]
    return loaders(bits.sum(1).long() + 16 * torch.arange(16), y)


def masks() -> tuple[Any, Any]:
    """Digits under noise, and which pixels belong to the digit."""
    x, _ = digits()
    noise = 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    return loaders(x + noise, (x[:, 0] > 0.3).long())


def graph() -> tuple[Any, Any]:
    """Digits as nodes, neighbours by distance; the labels of half of them are known. One batch without a batch axis."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    a = torch.tensor(kneighbors_graph(bunch.data, 8).toarray(), dtype=torch.float32)
    a = ((a + a.T) > 0).float() + torch.eye(len(y))
    scale = a.sum(1).rsqrt()
    a = scale[:, None] * a * scale
    known = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    return [((x, a), torch.where(known, y, -100))] * 10, [((x, a), torch.where(known, -100, y))]


def text() -> str:
    """The descriptions of scikit-learn's data sets, small letters only."""
    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    found = "".join(p.read_text(errors="ignore") for p in sorted(folder.glob("*.rst")))
    return re.sub(r"[^a-z .,\n]", "", found.lower())[:40_000]


def letters() -> tuple[Any, Any]:
    """`text`, in pieces of 32 characters; to be told is the next one."""
    known = sorted(set(text()))
    ids = torch.tensor([known.index(c) for c in text()])
    n = (len(ids) - 1) // 32
    x, y = ids[: 32 * n].reshape(n, 32), ids[1 : 32 * n + 1].reshape(n, 32)
    cut = 9 * n // 10
    return [(x[i : i + 32], y[i : i + 32]) for i in range(0, cut, 32)], [(x[cut:], y[cut:])]


CASES: dict[str, Case] = {
    "mobilenet": Case(lambda: o.MobileNet(widths=(16, 24, 32)), pictures, 10, 3e-3),
    "vit": Case(lambda: o.ViT(8, 2, 64, 2), pictures, 20, 1e-3),
    "gru": Case(lambda: o.GRUClassifier(256, 32, 64, 10), sentences, 20, 5e-3),
    "conv1d": Case(lambda: o.Conv1dNet(8, (64, 64, 96)), rows, 10, 3e-3),
    "unet": Case(lambda: o.UNet((16, 32, 48)), masks, 4, 3e-3),
    "gcn": Case(lambda: o.GCN(64, 64, 10), graph, 12, 1e-2),
    "spiking": Case(lambda: o.SpikingNet(8), pictures, 10, 3e-3),
    "lstm": Case(lambda: o.CharLSTM(len(set(text())), 32, 96), letters, 12, 5e-3),
}
