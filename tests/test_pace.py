"""The learning rate that a run takes where its recipe names none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.recipe.sections import Training
from secateur.run.pace import learning_rate


@pytest.mark.parametrize(
    ("steps", "rate", "expected"),
    [
        (220, 16.0, 3e-3),  # wants 1,600: seven times, three at most
        (800, 16.0, 2e-3),
        (1600, 16.0, 1e-3),
        (80_000, 16.0, 1e-3),
        (400, 4.0, 2e-3),
        (20, 3.9, 1e-3),  # mild
        (20, 1.0, 1e-3),  # no limit
        (0, 16.0, 1e-3),
    ],
)
def test_few_steps_for_a_large_cut_raise_the_rate(steps: int, rate: float, expected: float) -> None:
    assert learning_rate(Training(), steps, rate) == pytest.approx(expected)
    assert learning_rate(Training(optimizer="adamw"), steps, rate) == pytest.approx(expected)


def test_a_rate_that_is_named_stays_and_sgd_has_none_to_scale() -> None:
    assert learning_rate(Training(lr=1e-3), 20, 64.0) == 1e-3
    assert learning_rate(Training(lr=0.5), 20_000, 64.0) == 0.5
    assert learning_rate(Training(optimizer="sgd"), 20, 64.0) == 1e-3


@pytest.mark.parametrize("given", [None, 1e-3])
def test_a_run_trains_at_it_and_says_so(given: float | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))
    batches = [(torch.randn(16, 32), torch.randint(0, 4, (16,))) for _ in range(8)]
    report = secateur.compress(
        net,
        batches,
        valid=batches,
        budget={"nbytes": 900},
        recipe={
            "baselines": [],
            "bench": {"against": [], "seconds": 0.001},
            "solver": {"name": "gradual", "epochs": 4},
            "training": {"threads": 1, "warmup_steps": 0, "schedule": "constant"} | ({"lr": given} if given else {}),
        },
        on_progress=False,
    ).report
    seen = [r["lr"] for r in report["history"]]
    assert seen
    assert seen == pytest.approx([given or 3e-3] * len(seen))
    assert (given is None) == any("training.lr" in n for n in report["notes"])
