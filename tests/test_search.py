"""Which answer is given: a baseline that wins is the answer, and the report says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.nets import batches, blobs, mlp
from torch import nn

import secateur
from secateur.data.tensors import TensorData
from secateur.job import Candidate, Job


def trained() -> nn.Module:
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for x, y in batches(512) * 3:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def test_one_shot_that_is_better_on_validation_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradual without a polish, its only pruning at the very last step: nothing repairs what that one cut breaks."""
    attempts: dict[str, Candidate] = {}
    real = Job.attempt

    def attempt(self: Job, name: str, *rest: Any) -> Candidate:
        attempts[name] = real(self, name, *rest)
        return attempts[name]

    monkeypatch.setattr(Job, "attempt", attempt)
    result = secateur.compress(
        trained(),
        TensorData(*blobs(512), batch_size=32),
        valid=TensorData(*blobs(256, 1), batch_size=32),
        recipe={
            "constrain": [{"where": "*", "with": "topk"}],
            "solver": {"name": "gradual", "epochs": 4, "every": 10_000, "ramp": 1.0, "polish": 0},
            "baselines": ["one_shot"],
            "training": {"lr": 1e-2, "threads": 1, "warmup_steps": 2},
            "bench": {"seconds": 0.01, "against": []},
        },
        budget={"nnz": "10"},
    )
    main, one_shot = attempts["main"], attempts["one_shot"]
    assert one_shot.metric > main.metric + 0.1  # the case is not a near tie
    report = result.report
    assert report["outcome"] == "one_shot_better"
    assert any(n.startswith("one-shot with equal retraining was better on validation") for n in report["notes"])
    assert any(f"({one_shot.metric:.4f} against {main.metric:.4f})" in n for n in report["notes"])
    assert result.files.sct == one_shot.files.sct != main.files.sct
    assert report["compressed"]["metric_valid"] == one_shot.metric == report["one_shot"]["metric_valid"]
    x, _ = blobs(64, 5)
    torch.testing.assert_close(result.model(x), one_shot.files.module(x), rtol=0, atol=0)
    assert not torch.equal(result.model(x), main.files.module(x))
