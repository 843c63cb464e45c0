"""The eight ordinary networks in small, trained on real data that scikit-learn brings: (net, train, valid) by name."""

from __future__ import annotations

import re
from collections.abc import Callable
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

Case = tuple[nn.Module, Any, Any]


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


def trained(build: Callable[[], nn.Module], epochs: int, lr: float, x: Tensor, y: Tensor) -> Case:
    """The case of a network that takes single examples."""
    torch.manual_seed(1)
    net, (train, valid) = build(), loaders(x, y)
    fit(net, train, epochs, lr)
    return net, train, valid


def patches(x: Tensor) -> Tensor:
    """Pictures as sentences of 16 words: which pixels of a 2x2 patch are dark, and where it stands; 256 words."""
    bits = F.unfold((x > 0.4).float(), 2, stride=2) * torch.tensor([1.0, 2, 4, 8])[:, None]
    return bits.sum(1).long() + 16 * torch.arange(16)


def graph() -> Case:
    """Digits as nodes, neighbours by distance; the labels of half of them are known. One batch without a batch axis."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    a = torch.tensor(kneighbors_graph(bunch.data, 8).toarray(), dtype=torch.float32)
    a = ((a + a.T) > 0).float() + torch.eye(len(y))
    scale = a.sum(1).rsqrt()
    a = scale[:, None] * a * scale
    known = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    train = [((x, a), torch.where(known, y, -100))] * 10
    torch.manual_seed(1)
    net = o.GCN(64, 64, 10)
    fit(net, train, 12, 1e-2)
    return net, train, [((x, a), torch.where(known, -100, y))]


def letters() -> Case:
    """The descriptions of scikit-learn's data sets, character by character."""
    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    text = "".join(p.read_text(errors="ignore") for p in sorted(folder.glob("*.rst")))
    text = re.sub(r"[^a-z .,\n]", "", text.lower())[:40_000]
    known = sorted(set(text))
    ids = torch.tensor([known.index(c) for c in text])
    n = (len(ids) - 1) // 32
    x, y = ids[: 32 * n].reshape(n, 32), ids[1 : 32 * n + 1].reshape(n, 32)
    cut = 9 * n // 10
    train = [(x[i : i + 32], y[i : i + 32]) for i in range(0, cut, 32)]
    torch.manual_seed(1)
    net = o.CharLSTM(len(known), 32, 96)
    fit(net, train, 12, 5e-3)
    return net, train, [(x[cut:], y[cut:])]


def pictures() -> Case:
    """Which pixels under noise belong to the digit."""
    x, _ = digits()
    noise = 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    return trained(lambda: o.UNet((16, 32, 48)), 4, 3e-3, x + noise, (x[:, 0] > 0.3).long())


CASES: dict[str, Callable[[], Case]] = {
    "mobilenet": lambda: trained(lambda: o.MobileNet(widths=(16, 24, 32)), 10, 3e-3, *digits()),
    "vit": lambda: trained(lambda: o.ViT(8, 2, 64, 2), 20, 1e-3, *digits()),
    "gru": lambda: trained(lambda: o.GRUClassifier(256, 32, 64, 10), 20, 5e-3, patches(digits()[0]), digits()[1]),
    "conv1d": lambda: trained(lambda: o.Conv1dNet(8, (64, 64, 96)), 10, 3e-3, digits()[0][:, 0], digits()[1]),
    "unet": pictures,
    "gcn": graph,
    "spiking": lambda: trained(lambda: o.SpikingNet(8), 10, 3e-3, *digits()),
    "lstm": letters,
}
