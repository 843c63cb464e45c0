"""A joint set reaches what its parts reach: as small a file, and as small a distance at the same size."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.api.asked import Asked, make_job
from secateur.errors import BudgetError
from secateur.proof.judge import Judge
from secateur.recipe import Recipe
from secateur.run import stages
from secateur.run.job import Job
from secateur.run.net import sizes
from secateur.terms import feasible, views
from secateur.training.checkpoint import Ledger

PARTS: dict[str, list[Any]] = {
    "codebook": ["topk", {"name": "codebook", "max_entries": 32, "zero": "free"}],
    "uniform": ["topk", "uniform"],
}
# Of the weights' sum of squares: pairs are chosen by estimates of their distances (docs/design/allocation.md).
OFF = 0.005


class Separable(nn.Module):
    """Depthwise layers of nine weights a channel, and norms that cost more than they."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.wide, self.norm2 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.deep, self.norm3 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.slim, self.norm4 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.norm3(self.deep(torch.relu(self.norm2(self.wide(x))))))
        return self.fc((x + self.norm4(self.slim(y))).mean((2, 3)))


def separable() -> tuple[nn.Module, Tensor]:
    return Separable(), torch.randn(4, 1, 6, 6)


def perceptron() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 5)), torch.randn(
        4, 16
    )


def convolutions() -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(
        nn.Conv1d(3, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    return net, torch.randn(4, 3, 12)


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "separable": separable,
    "perceptron": perceptron,
    "convolutions": convolutions,
}


@cache
def net_of(name: str) -> tuple[nn.Module, Tensor, Any]:
    """With norms as after a training, and the dense net written: one export serves all budgets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net, x = NETS[name]()
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean = torch.randn(m.num_features)
                m.running_var = torch.rand(m.num_features) + 0.5
                m.weight.data.uniform_(0.5, 1.5)
                m.bias.data.normal_()
    job = job_of(net, x, "topk", 1)
    return net, x, job.dense_files


def job_of(net: nn.Module, x: Tensor, chosen: Any, value: float) -> Job:
    y = torch.zeros(len(x), dtype=torch.int64)
    given = {"constrain": {"with": chosen}, "solver": "one_shot", "baselines": [], "saliency": "abs"}
    recipe = Recipe.of(given, {"nbytes": f"{math.ceil(value)}B"}, 0)
    judge = Judge("metric", lambda m: 0.0, "validation", None, True)
    task = nn.functional.cross_entropy
    asked = Asked(net, [(x, y)], task, lambda m: 0.0, True, None, judge, x, "", "", [])
    job = make_job(asked, recipe, Ledger(), None)
    stages.settle_dense(job)
    return job


def answered(name: str, chosen: Any, value: float) -> tuple[float, float]:
    """Bytes and distance sum (w - z)^2 of the net that one-shot projection gives under `value` bytes."""
    net, x, files = net_of(name)
    job = job_of(net, x, chosen, value)
    job.__dict__["dense_files"] = files
    start = job.start
    purse = job.purse(start, job.limits)
    weights = {k: w.clone() for k, w in start.weights.items()}
    purse.probe(weights, {})
    seen: dict[str, tuple[float, float]] = {}

    def costs(levels: Any) -> dict[str, Any]:
        near = {**weights, **start.supported(levels, weights, {})}
        near |= feasible.project(start.terms, levels, near)
        small = start.smaller(near)
        cost = sizes(small, start.traced, lambda: job.template.nbytes(small, start.terms))
        pairs = [[views.matrix(t.site, "weight", w) for w in (weights, near)] for t in start.terms]
        seen[str(levels)] = cost["nbytes"], sum(float((a - b).square().sum()) for a, b in pairs)
        return cost

    levels = purse.fit(weights, {}, costs)
    if str(levels) not in seen:
        costs(levels)
    return seen[str(levels)]


def smallest(name: str, chosen: Any) -> float:
    """The size that a refusal names."""
    with pytest.raises(BudgetError) as caught:
        answered(name, chosen, 20)
    assert caught.value.smallest is not None
    return caught.value.smallest


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("name", NETS)
def test_a_joint_set_reaches_the_smallest_size_of_each_part(name: str, kind: str) -> None:
    joint = smallest(name, PARTS[kind])
    assert joint <= min(smallest(name, part) for part in PARTS[kind])
    assert answered(name, PARTS[kind], joint)[0] <= joint


@pytest.mark.parametrize("divisor", [*(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10)), 6])
@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("name", NETS)
def test_a_joint_set_is_never_further_off_than_a_part_at_the_same_size(name: str, kind: str, divisor: int) -> None:
    files = net_of(name)[2]
    value = math.ceil(len(files.sct) / divisor)
    energy = sum(float(p.detach().square().sum()) for p in net_of(name)[0].parameters() if p.dim() > 1)
    got, distance = answered(name, PARTS[kind], value)
    assert 0.8 * value <= got <= value
    for part in PARTS[kind]:
        try:
            size, alone = answered(name, part, value)
        except BudgetError:
            continue
        assert size <= value
        assert distance <= alone + OFF * energy
