"""Layer-wise ADMM against brute force, against least squares in a support, and against magnitude on a trained net."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.solvers.test_obs import accuracy, gram, lost
from torch import Tensor

from secateur import catalog
from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.errors import UsageError
from secateur.solvers.layerwise_admm import LayerwiseAdmm
from secateur.solvers.obs import Obs

EXACT = 1e-9  # damping


def drawn(rows: int, cols: int, seed: int) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least_squares(w: Tensor, support: list[int], hessian: Tensor) -> Tensor:
    """The best row in a support."""
    z, h = torch.zeros_like(w), hessian[0]
    z[0, support] = torch.linalg.solve(h[support][:, support], h[support] @ w[0])
    return z


def test_it_is_near_the_best_support_of_all() -> None:
    """Of ten weights four stay. Lost above the optimum, as a part of what all weights are worth, mean of twelve."""
    above = {"admm": 0.0, "obs": 0.0, "magnitude": 0.0}
    for seed in range(12):
        hessian, w = gram(10, seed=seed), drawn(1, 10, 100 + seed)
        best = min(lost(w, least_squares(w, list(s), hessian), hessian) for s in itertools.combinations(range(10), 4))
        answers = {
            "admm": LayerwiseAdmm(damping=EXACT).prune(TopK(), w, 4, hessian),
            "obs": Obs(damping=EXACT, block=1).prune(TopK(), w, 4, hessian),
            "magnitude": TopK().project(w, 4),
        }
        for name, z in answers.items():
            assert int(z.count_nonzero()) == 4
            assert lost(w, z, hessian) >= best * (1 - 1e-9)
            above[name] += (lost(w, z, hessian) - best) / lost(w, 0 * w, hessian) / 12
    assert above["admm"] < 0.02  # found: 0.012
    assert above["obs"] > 2 * above["admm"], above
    assert above["magnitude"] > above["obs"], above


def test_in_its_support_the_answer_is_least_squares() -> None:
    hessian, w = gram(10), drawn(1, 10, 3)
    z = LayerwiseAdmm(damping=EXACT, steps=400).prune(TopK(), w, 5, hessian)
    best = least_squares(w, z[0].nonzero().flatten().tolist(), hessian)
    torch.testing.assert_close(z, best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_blocks_and_groups(groups: int) -> None:
    """Members, better than magnitude with its own scores, dead inputs nothing, the input untouched."""
    hessian, w, blocks = gram(12, groups), drawn(8, 12, 1), Blocks(rows=1, cols=4, groups=groups)
    hessian[:, 5], hessian[:, :, 5] = 0.0, 0.0
    before = w.clone()
    z = LayerwiseAdmm().prune(blocks, w, 10, hessian)
    assert torch.equal(w, before)
    assert blocks.contains(z, 10)
    assert not bool(z[:, 5].any())
    assert lost(w, z, hessian) < lost(w, blocks.project(w, 10), hessian)
    assert bool(LayerwiseAdmm().prune(TopK(), w, 12, torch.zeros(groups, 12, 12)).isfinite().all())


def test_more_steps_are_never_worse_than_the_projection_that_it_starts_from() -> None:
    hessian, w = gram(16), drawn(6, 16, 2)
    scaled = w * hessian[0].diagonal().sqrt()
    start = TopK().project(scaled, 30) / hessian[0].diagonal().sqrt()
    for steps in (2, 3, 20):
        z = LayerwiseAdmm(damping=EXACT, steps=steps).prune(TopK(), w, 30, hessian)
        assert lost(w, z, hessian) <= lost(w, start, hessian) * (1 + 1e-9)


def test_without_retraining_it_beats_magnitude_by_far() -> None:
    one_shot = accuracy(catalog.load("solvers", "one_shot")(), "abs", 0.85)
    assert accuracy(LayerwiseAdmm(), "abs", 0.85) > one_shot + 0.5  # 91 % and 26 %


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="layerwise_admm: damping=0"):
        LayerwiseAdmm(damping=0.0)
    with pytest.raises(UsageError, match=r"start=2.0, end=1.0"):
        LayerwiseAdmm(start=2.0, end=1.0)
