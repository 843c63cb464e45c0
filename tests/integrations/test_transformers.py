"""`transformers.Trainer` with the callback: the budget is met, and a run that goes on from a checkpoint ends alike."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from integrations.small import LIKE, RECIPE, examples
from secateur.errors import UsageError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

from secateur.integrations.transformers import SecateurCallback  # noqa: E402

STEPS = 24


class Net(nn.Module):
    """What the Trainer asks of a model: keywords in, a loss out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(x)
        return {"logits": logits} | ({} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)})


def trained(folder: Path, callback: SecateurCallback, resume: str | None = None, **options: Any) -> Any:
    args = transformers.TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        save_steps=8,
        save_strategy="steps",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        **options,
    )
    trainer = transformers.Trainer(
        Net(),
        args,
        train_dataset=[{"x": a, "labels": b} for a, b in zip(*examples(), strict=True)],
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=resume)
    return callback.result


def test_the_budget_is_met_and_a_run_goes_on_from_every_checkpoint_to_the_bit(tmp_path: Path) -> None:
    like = {"x": LIKE}
    whole = trained(tmp_path / "a", SecateurCallback(RECIPE, like))
    assert whole.report["budget"] == [{"name": "nnz", "asked": 120.0, "reached": 120, "met": True}]
    verified = [sys.executable, "-m", "secateur", "verify", str(tmp_path / "a" / "secateur")]
    assert subprocess.run(verified, capture_output=True).returncode == 0
    for step in (8, 16):
        again = SecateurCallback(RECIPE, like)
        resumed = trained(tmp_path / "a", again, str(tmp_path / "a" / f"checkpoint-{step}"))
        assert resumed.files.sct == whole.files.sct


def test_a_penalty_reaches_the_weights(tmp_path: Path) -> None:
    recipe = {**RECIPE, "solver": {"name": "admm"}}
    found = trained(tmp_path, SecateurCallback(recipe, {"x": LIKE}), gradient_accumulation_steps=2)
    assert found.report["budget"][0]["met"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    like = {"x": LIKE}
    trained(tmp_path, SecateurCallback(RECIPE, like))
    (tmp_path / "checkpoint-8" / "secateur.pt").unlink()
    with pytest.raises(UsageError, match=r"checkpoint-8.*without this callback"):
        trained(tmp_path, SecateurCallback(RECIPE, like), str(tmp_path / "checkpoint-8"))


def test_a_mistake_in_the_recipe_is_told_before_anything_is_trained() -> None:
    with pytest.raises(UsageError, match="budget"):
        SecateurCallback({**RECIPE, "budget": {"nnz": "many"}}, {"x": LIKE})


def test_what_is_missing_is_named() -> None:
    code = "import sys; sys.modules['transformers'] = None\nimport secateur.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "pip install 'secateur[transformers]'" in done.stderr
