"""Which answer is given: a baseline that wins is the answer, and the report says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.nets import batches, blobs, mlp
from torch import nn

import secateur
from secateur.data.tensors import TensorData
from secateur.run import search
from secateur.run.job import Job
from secateur.run.net import Candidate
from secateur.types import Progress


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
    real = search.attempt

    def attempt(job: Job, name: str, *rest: Any) -> Candidate:
        attempts[name] = real(job, name, *rest)
        return attempts[name]

    monkeypatch.setattr(search, "attempt", attempt)
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


def test_no_stage_is_silent() -> None:
    """Prices, projections, values, files, comparison and timing are told as they begin, in the order of the run."""
    g = torch.Generator().manual_seed(0)
    data = [(torch.randn(32, 8, generator=g), torch.randint(0, 3, (32,), generator=g)) for _ in range(3)]
    seen: list[Progress] = []
    recipe = {
        "constrain": [{"where": "*", "with": ["topk", "codebook"]}],
        "solver": {"name": "gradual", "epochs": 2},
        "bench": {"seconds": 0.01, "against": []},
    }
    net = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3))
    secateur.compress(net, data, valid=data, budget={"nbytes": "600B"}, recipe=recipe, on_progress=seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    own = [s for s in stages if not s.endswith((".approach", ".polish", ".snap"))]
    after = ["prices", "fit", "snap.values", "write"]
    assert own == [*(f"main.{s}" for s in after), *(f"one_shot.{s}" for s in after), "comparison", "timing"]
    assert all(0 <= p.done <= p.total for p in seen)
    assert all(max(p.done / p.total for p in seen if p.stage == s) == 1 for s in own if not s.endswith("prices"))
