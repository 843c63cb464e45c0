"""Compress while Lightning's `Trainer` trains: one callback.

    python examples/lightning_trainer.py [FOLDER]

A digits classifier is trained, then goes on training within a budget of bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import Result, data, zoo
from secateur.integrations.lightning import SecateurCallback

RECIPE = {
    "budget": {"nbytes": "30KB"},  # the dense file has 640 KB
    "constrain": [{"where": "*", "with": "topk"}],
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.2},
}


class Digits(lightning.LightningModule):
    """The network, its loss, its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = zoo.digits_cnn()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 2e-3)


def trainer(epochs: int, *callbacks: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), **quiet)


def main(folder: Path, dense_epochs: int = 10, epochs: int = 24) -> Result:
    torch.manual_seed(0)
    splits = data.load("digits")
    task = Digits()

    def accuracy(net: nn.Module) -> float:
        with torch.no_grad():
            return sum(int((net(x).argmax(1) == y).sum()) for x, y in splits.valid) / splits.valid.n_examples

    trainer(dense_epochs).fit(task, splits.train)  # an ordinary network first; yours is trained already
    print(f"dense: {accuracy(task.net.eval()):.1%} of the validation digits")
    task.train()
    callback = SecateurCallback(RECIPE, torch.zeros(2, 1, 8, 8), evaluate=accuracy, folder=folder)
    trainer(epochs, callback).fit(task, splits.train)
    result = callback.result
    print(f"compressed: {accuracy(result.model.eval()):.1%}, {len(result.files.sct):,} bytes, in {folder}")
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as place:
            main(Path(place))
