"""Random search: which supports are drawn and which one is taken; the trial that it asks for, in both loops."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import Compressor, catalog, compress
from secateur.contracts import Problem, Solver
from secateur.errors import UsageError
from secateur.solvers.random_search import RandomSearch
from secateur.testing.solvers import cases
from secateur.training.trial import Trial

SEARCHES = {"random_search": {"draws": 4}, "evolution": {"trials": 6, "population": 3}}


def asked(trial: Any, seed: int = 0, label: str = "n:m and top-k") -> Problem:
    from dataclasses import replace

    problem = next(c for c in cases() if c.label == label).problem()
    return replace(problem, trial=trial, seed=seed)


@torch.no_grad()
def answer(solver: Solver, problem: Problem) -> dict[str, Tensor]:
    return solver.finish(solver.init(problem)).weights


def test_the_draw_with_the_least_loss_is_taken() -> None:
    seen: list[tuple[float, dict[str, Tensor]]] = []

    def trial(weights: dict[str, Tensor]) -> float:
        seen.append((float(sum((7 * w.sum()).sin() for w in weights.values())), weights))
        return seen[-1][0]

    found = answer(RandomSearch(draws=20), asked(trial))
    assert len(seen) == 20
    least = min(seen, key=lambda s: s[0])[1]
    assert all(torch.equal(found[k], w) for k, w in least.items())
    assert len({tuple(torch.cat([w.flatten() != 0 for w in s.values()]).tolist()) for _, s in seen}) == 20


def test_every_weight_is_as_likely_to_stay() -> None:
    """Of 32 weights 7 stay: each in 7 of 32 draws, whatever it weighs."""
    counted: Counter[int] = Counter()
    for seed in range(200):
        kept = answer(RandomSearch(draws=1), asked(lambda w: 0.0, seed, "top-k"))["w0"]
        counted.update(kept.flatten().nonzero().flatten().tolist())
    assert sum(counted.values()) == 200 * 7
    expected = 200 * 7 / 32
    spread = sum((counted[i] - expected) ** 2 for i in range(32)) / (expected * (1 - 7 / 32))
    assert spread < 61  # chi square, 31 degrees of freedom: more in one of a thousand


def test_a_loss_that_is_no_number_is_never_taken() -> None:
    one_shot = answer(catalog.load("solvers", "one_shot")(), asked(None))
    found = answer(RandomSearch(draws=3), asked(lambda w: float("nan")))
    assert all(torch.equal(found[k], w) for k, w in one_shot.items())  # the levels' own answer


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(216, 10)
    )


def batches(n: int = 6) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 1, 8, 8, generator=g) + i, torch.randint(10, (16,), generator=g)) for i in range(n)]


def test_a_trial_is_the_loss_of_the_net_with_these_weights_and_changes_nothing() -> None:
    model, data = net().train(), batches(2)
    before = copy.deepcopy(model.state_dict())
    other = {"0.weight": torch.randn(6, 1, 3, 3), "5.weight": torch.randn(10, 216)}

    def loss() -> float:
        return sum(float(cross_entropy(model(x), y)) for x, y in data) / 2

    found = Trial(model, loss)(other)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    # By hand: the batch's own mean and variance, no dropout.
    wanted = 0.0
    for x, y in data:
        c = nn.functional.conv2d(x, other["0.weight"], before["0.bias"])
        c = (c - c.mean((0, 2, 3), keepdim=True)) / (c.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        wanted += float(cross_entropy(c.relu().flatten(1) @ other["5.weight"].T + before["5.bias"], y)) / 2
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_trial_that_fails_leaves_the_net_as_it_was() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())

    def fails() -> float:
        raise ValueError("no such batch")

    with pytest.raises(ValueError, match="no such batch"):
        Trial(model, fails)({"0.weight": torch.zeros(6, 1, 3, 3)})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", SEARCHES)
def test_both_loops_try_weights_within_the_budget(name: str) -> None:
    recipe = {
        "constrain": {"with": "topk"}, "budget": {"nnz": 400}, "baselines": [], "training": {"threads": 1},
        "solver": {"name": name, "epochs": 0.5, **SEARCHES[name]}, "bench": {"against": [], "seconds": 0.01},
    }  # fmt: skip
    ours = compress(net(), batches(), recipe=recipe, on_progress=False)
    assert ours.report["compressed"]["nnz"] <= 400
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(UsageError, match=f"solver {name} tries other weights.*give loss="):
        Compressor(model, recipe, batches()[0][0], optimizer=optimizer, total_steps=4)
    tried: list[float] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # a trial, not a training step
            kept = sum(int(model.get_parameter(k).count_nonzero()) for k in ("0.weight", "5.weight"))
            assert kept <= 400
            assert not model[4].training
            tried.append(float(cross_entropy(outputs, targets)))
        return cross_entropy(outputs, targets)

    given = {"optimizer": optimizer, "total_steps": 4, "loss": loss}
    with pytest.raises(UsageError, match="calibration is empty"):
        Compressor(model, recipe, batches()[0][0], calibration=[], **given)
    theirs = Compressor(model, recipe, batches()[0][0], calibration=batches(3), **given)
    assert len(tried) >= 2 * 4  # two batches a trial
    for x, y in batches(4):
        optimizer.zero_grad()
        (cross_entropy(model(x), y) + theirs.penalty()).backward()
        optimizer.step()
        theirs.step()
    assert theirs.finalize().report["compressed"]["nnz"] <= 400


@pytest.mark.parametrize("name", SEARCHES)
def test_what_has_no_support_is_refused_when_the_recipe_meets_the_net(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} .*lowrank keeps them all"):
        compress(
            net(),
            batches(1),
            recipe={"solver": {"name": name}, "constrain": {"with": "lowrank"}, "budget": {"macs": "50K"}},
        )
    with pytest.raises(UsageError, match=f"solver {name}"):
        catalog.load("solvers", name)(**{next(iter(SEARCHES[name])): 0})
