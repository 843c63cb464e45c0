"""Optimal brain surgeon against least squares, on grouped layers, and against magnitude on a trained net."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur import catalog, graph
from secateur.constraints.blocks import Blocks
from secateur.constraints.columns import Columns
from secateur.constraints.nm import NM
from secateur.constraints.punched import Punched
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Problem, Solver, Term
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.run.problem import importance_of
from secateur.solvers.obs import Obs
from secateur.terms import feasible
from secateur.training.calibration import Statistics
from secateur.training.inputs import Inputs


def gram(cols: int, groups: int = 1, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, 50, cols, generator=g, dtype=torch.float64) @ torch.randn(cols, cols, generator=g).double()
    return 2 * x.mT @ x / 50


def lost(w: Tensor, z: Tensor, hessian: Tensor) -> float:
    gap = (w - z).reshape(hessian.shape[0], -1, hessian.shape[1])
    return float(((gap @ hessian) * gap).sum()) / 2


def test_what_stays_takes_over_as_least_squares_would() -> None:
    """The first column goes: no other way to set the rest does better."""
    hessian, w = gram(5), torch.tensor([[1e-3, 2.0, -1.0, 3.0, 1.0]], dtype=torch.float64)
    z = Obs(damping=1e-12).prune(TopK(), w, 4, hessian)
    h = hessian[0]
    best = w[0, 1:] + torch.linalg.solve(h[1:, 1:], h[1:, 0]) * w[0, 0]
    assert z[0, 0] == 0
    torch.testing.assert_close(z[0, 1:], best, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "level"),
    [
        (lambda g: TopK(), 60),
        (lambda g: NM(), 2),
        (lambda g: NM(), 1),
        (lambda g: Blocks(rows=1, cols=4, groups=g), 20),
        (lambda g: Blocks(rows=4, cols=1, groups=g), 20),
        (lambda g: Columns(groups=g), 12),
        (lambda g: Punched(rows=4, cols=8, groups=g), 5),
    ],
)
@pytest.mark.parametrize("block", [3, 8, 100])
@pytest.mark.parametrize("groups", [1, 3])
def test_answers_are_members_and_lose_less_than_without_correction(
    make: Callable[[int], Constraint], level: int, block: int, groups: int
) -> None:
    constraint, hessian = make(groups), gram(24, groups)
    ours = theirs = 0.0
    for seed in range(5):
        w = torch.randn(12, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        before = w.clone()
        z = Obs(block=block).prune(constraint, w, level, hessian)
        assert torch.equal(w, before)
        assert constraint.contains(z, level)
        assert lost(w, z, hessian) < lost(w, w * (z != 0), hessian)
        ours, theirs = ours + lost(w, z, hessian), theirs + lost(w, constraint.project(w, level), hessian)
    assert ours < theirs if block <= 8 else ours < 1.1 * theirs  # all at once: no choice knows of the corrections


def test_inputs_that_are_always_zero_cost_nothing() -> None:
    hessian, w = gram(8), torch.randn(3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hessian[:, 3], hessian[:, :, 3] = 0.0, 0.0
    z = Obs().prune(TopK(), w, 12, hessian)
    assert not bool(z[:, 3].any())
    assert int(z.count_nonzero()) == 12
    assert bool(Obs().prune(TopK(), w, 12, torch.zeros(1, 8, 8)).isfinite().all())


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="damping"):
        Obs(damping=0.0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("rows", "rows has whole rows go"),
        ("codebook", "no question for codebook"),
        (["rows", "codebook"], "rows has whole"),
    ],
)
def test_sets_that_it_cannot_do_are_refused_when_the_recipe_meets_the_net(given: Any, why: str) -> None:
    traced = graph.trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), torch.randn(2, 1, 8, 8))
    recipe = Recipe.from_dict({"solver": "obs", "constrain": {"with": given}})
    with pytest.raises(UsageError, match=why):
        recipe.build_terms(traced.sites, traced.groups)
    for fine in (["topk", "codebook"], {"name": "blocks", "rows": 1, "cols": 4}, "columns", ["columns", "topk"]):
        recipe = Recipe.from_dict({"solver": "obs", "constrain": {"with": fine}})
        assert recipe.build_terms(traced.sites, traced.groups)


def test_what_nobody_reads_gives_its_place_to_others() -> None:
    """Two of eight hidden units are not read: no weight that stays feeds them, and none of the budget is lost."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[2].weight[:, [2, 5]] = 0
    x = torch.randn(64, 6)
    traced = graph.trace(net, (x[:2],))
    terms = tuple(Term(s, TopK(), 12, True) for s in traced.sites if s.op == "linear")
    params, levels = dict(net.named_parameters()), {t.site.name: 12 for t in terms}
    stats = Statistics(params, inputs=Inputs(net, lambda: [x]))
    problem = Problem(params, terms, lambda w, h, t: levels, 0, effective=traced.effective, statistics=stats)
    with torch.no_grad():
        answer = Obs().finish(Obs().init(problem)).weights
    alive = traced.effective(answer)
    for name in ("0.weight", "2.weight"):
        assert not bool((answer[name] != 0)[~alive[name]].any())
    assert not bool(answer["0.weight"][[2, 5]].any())
    assert int(answer["0.weight"].count_nonzero()) == 12


@cache
def digits(seed: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A small convolution net that knows the digits, calibration images, and a test set."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        order = torch.randperm(len(x))
        x, y = x[order], y[order]
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        for _ in range(12):
            for i in torch.randperm(1200).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[i]), y[i]).backward()
                optimizer.step()
    return net.eval(), x[:1200], x[1200:], y[1200:]


def accuracy(solver: Solver, saliency: str, sparsity: float) -> float:
    """The mean over three nets."""
    return sum(pruned(seed, solver, saliency, sparsity) for seed in range(3)) / 3


def pruned(seed: int, solver: Solver, saliency: str, sparsity: float) -> float:
    """The accuracy of a digits net with every layer pruned by so much, and nothing trained after it."""
    dense, seen, x, y = digits(seed)
    net = copy.deepcopy(dense)
    sites = [s for s in graph.trace(net, (seen[:2],)).sites if s.op in ("conv", "linear")]
    terms = tuple(Term(s, TopK(), round(s.n * (1 - sparsity)), True) for s in sites)
    levels = {t.site.name: t.level for t in terms}
    params = dict(net.named_parameters())
    stats = Statistics(params, inputs=Inputs(net, lambda: seen.split(200)))
    method = catalog.load("saliencies", saliency)()

    def importance() -> dict[str, Tensor | None]:
        return importance_of(terms, {k: p.detach() for k, p in params.items()}, method, stats, torch.Generator())

    asked = Problem(params, terms, lambda w, h, t: levels, 0, importance=importance, statistics=stats)
    with torch.no_grad():
        answer = solver.finish(solver.init(asked))
        assert not feasible.contains(terms, answer.levels, answer.weights)
        return float((net(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("sparsity", [0.8, 0.85, 0.9])
def test_without_retraining_obs_beats_wanda_beats_magnitude(sparsity: float) -> None:
    one_shot: Callable[[], Solver] = catalog.load("solvers", "one_shot")
    magnitude, wanda = accuracy(one_shot(), "abs", sparsity), accuracy(one_shot(), "wanda", sparsity)
    obs = accuracy(Obs(), "abs", sparsity)
    assert obs > wanda + 0.05
    assert wanda >= magnitude
