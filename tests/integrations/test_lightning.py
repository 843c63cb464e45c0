"""Lightning's Trainer with the callback: the budget is met, and a run that goes on from a checkpoint ends alike."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from integrations.small import LIKE, RECIPE, examples
from secateur.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
    from secateur.integrations.lightning import SecateurCallback

pytestmark = pytest.mark.filterwarnings("ignore")


class Task(lightning.LightningModule):
    """A network, its loss and its optimizer."""

    def __init__(self, two: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        if two:
            self.other = nn.Linear(2, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def fitted(folder: Path, callback: SecateurCallback, resume: Path | None = None, task: Any = None, **how: Any) -> Any:
    loader = DataLoader(TensorDataset(*examples()), batch_size=16)
    kept = lightning.callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(**{"max_steps": 24, "callbacks": [callback, kept], **quiet, **how})
    trainer.fit(task or Task(), loader, ckpt_path=None if resume is None else str(resume))
    return callback.result


def test_the_budget_is_met_and_a_run_goes_on_from_every_checkpoint_to_the_bit(tmp_path: Path) -> None:
    whole = fitted(tmp_path, SecateurCallback(RECIPE, LIKE, folder=tmp_path / "small"))
    assert whole.report["budget"] == [{"name": "nnz", "asked": 120.0, "reached": 120, "met": True}]
    assert (tmp_path / "small" / "model.sct").read_bytes() == whole.files.sct
    for step in (8, 16):
        resumed = fitted(tmp_path / "again", SecateurCallback(RECIPE, LIKE), tmp_path / f"step={step}.ckpt")
        assert resumed.files.sct == whole.files.sct


def test_steps_are_those_of_the_optimizer(tmp_path: Path) -> None:
    found = fitted(tmp_path, SecateurCallback(RECIPE, LIKE), accumulate_grad_batches=2, max_steps=12)
    assert found.report["budget"][0]["met"]


def test_the_network_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Task holds net, other .*module='NAME'"):
        fitted(tmp_path, SecateurCallback(RECIPE, LIKE), task=Task(two=True))


def test_a_training_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_epochs or max_steps"):
        fitted(tmp_path, SecateurCallback(RECIPE, LIKE), max_steps=-1, max_epochs=-1)
