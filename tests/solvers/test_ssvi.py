"""SSVI: its closed form against draws, RigL where sigma vanishes, where means and widths settle, who gives way."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.one_weight import problem, step

from secateur.constraints.blocks import Blocks
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Term
from secateur.errors import UsageError
from secateur.solvers._posterior import Posterior
from secateur.solvers.rigl import RigL
from secateur.solvers.ssvi import SSVI, certainty
from secateur.types import Member, Site

BARE = {"kl": 0.0, "rate": 0.0}  # widths stay, and nothing pulls at means


def begun(start: torch.Tensor, constraint: Constraint, level: int, steps: int, solver: SSVI) -> tuple:
    p = problem(start, constraint, level, steps)
    with torch.no_grad():
        return p, solver.init(p)


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 2.0), (0.3, 1.0), (-1.0, 0.7), (2.5, 0.5)])
def test_the_closed_form_is_what_draws_say(mean: float, sigma: float) -> None:
    drawn = (mean + sigma * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))).abs().double()
    found = float(certainty(torch.tensor(mean), torch.tensor(sigma)))
    assert found == pytest.approx(float(drawn.mean() / drawn.std()), rel=3e-3)


def test_certainty_rises_from_its_least_value_and_stays_exact_far_out() -> None:
    r = torch.linspace(0, 30, 3001, dtype=torch.float64)
    found = certainty(r, torch.ones_like(r))
    assert float(found[0]) == pytest.approx((2 / (torch.pi - 2)) ** 0.5)
    assert bool((found.diff() > 0).all())  # of single weights it chooses as |mean| / sigma does
    assert float(certainty(torch.tensor(5.0), torch.tensor(1e-6))) == pytest.approx(5e6)  # in single precision


def test_without_noise_it_is_rigl() -> None:
    g = torch.Generator().manual_seed(0)
    start, pull = torch.randn(8, 8, generator=g), [torch.randn(8, 8, generator=g) for _ in range(40)]
    ends, churn = [], []
    for solver in (RigL(every=4, part=0.5), SSVI(every=4, part=0.5, sigma=1e-12, **BARE)):
        p, state = begun(start, TopK(), 20, 40, solver)
        for slope in pull:
            state = step(solver, p, state, slope, 0.1)
            churn.append(state.churn)
        with torch.no_grad():
            ends.append(solver.finish(state).weights["w"])
    assert churn[:40] == churn[40:]
    assert sum(churn) > 0
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


def test_the_least_certain_gives_way_though_it_is_not_the_smallest() -> None:
    solver = SSVI(every=2, part=0.5, sigma=1e-4, memory=1, **BARE)
    p, state = begun(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0]]), TopK(), 4, 40, solver)
    with torch.no_grad():
        state.rho["w"] = torch.tensor([[0.001, 0.2, 0.001, 0.002, 9.0, 9.0]]).expm1().log()
        state.draw()
    for _ in range(2):
        state = step(solver, p, state, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.1, 0.9]]), 0.01)
    assert state.held()["w"].tolist() == [[True, False, True, True, False, True]]
    assert state.mean["w"].tolist() == [[pytest.approx(4.0), 0.0, pytest.approx(2.0), pytest.approx(1.0), 0.0, 0.0]]
    assert float(state.sigma("w")[0, 5]) == pytest.approx(0.004 / 3)  # the mean of what stayed
    assert state.noise["w"][0, 5] != 0
    assert state.noise["w"][0, 1] == state.noise["w"][0, 4] == 0


def test_means_and_widths_settle_where_the_bound_is_least() -> None:
    """Loss h/2 (w - best)^2: sigma^2 = kl / (h + kl / s^2), mean = best h / (h + kl / s^2)."""
    best, h, kl = torch.full((8, 16), 2.0), 0.4, 0.1
    solver = SSVI(part=0.0, kl=kl, prior=0.5, sigma=0.01, rate=0.02)  # s = 1: the root mean square is 2
    p, state = begun(best, TopK(), 128, 2, solver)  # the KL counts in full at once
    means, widths = [], []
    for _ in range(1500):
        state = step(solver, p, state, h * (p.params["w"].detach() - best), 0.05)
        means.append(float(state.mean["w"].mean()))
        widths.append(float(state.sigma("w").mean()))
    assert sum(means[-300:]) / 300 == pytest.approx(2.0 * h / (h + kl), rel=0.02)
    assert sum(widths[-300:]) / 300 == pytest.approx((kl / (h + kl)) ** 0.5, rel=0.05)


def test_what_is_judged_is_the_mean_and_what_learns_is_a_draw() -> None:
    start = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    solver = SSVI(sigma=0.5, part=0.0, **BARE)
    p, state = begun(start, TopK(), 30, 10, solver)
    for _ in range(3):
        shown = p.params["w"].detach().clone()
        assert not torch.allclose(shown, state.mean["w"])
        judged = state.candidate(state.tracked())["w"]
        torch.testing.assert_close(judged, start * state.held()["w"])
        assert int((shown != 0).sum()) == int((judged != 0).sum()) == 30
        state = step(solver, p, state, torch.zeros_like(start), 0.1)
        assert not torch.equal(shown, p.params["w"].detach())  # a draw of its own for every step
    assert state.numbers()["sigma"] == pytest.approx(0.5)
    with torch.no_grad():
        torch.testing.assert_close(solver.finish(state).weights["w"], start * state.held()["w"])


def test_blocks_are_exchanged_whole() -> None:
    g = torch.Generator().manual_seed(0)
    solver, blocks = SSVI(every=3, part=0.5, sigma=0.1), Blocks(rows=2)
    p, state = begun(torch.randn(8, 8, generator=g), blocks, 12, 24, solver)
    before, moved = state.held()["w"], 0
    for _ in range(24):
        state = step(solver, p, state, torch.randn(8, 8, generator=g), 0.1)
        now = state.held()["w"]
        assert int(now.sum()) == 24
        assert torch.equal(now[::2], now[1::2])
        assert not bool(state.mean["w"][~now].any())
        moved += int((now & ~before).sum())
        before = now
    assert moved > 0


def test_other_seeds_draw_other_noise() -> None:
    start = torch.ones(2, 4)
    drawn = []
    for seed in (0, 0, 1):
        with torch.no_grad():
            state = Posterior(problem(start, TopK(), 8, 10, seed=seed))
            state.begin(["w"], 0.1)
        drawn.append(state.noise["w"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_refusals_and_options() -> None:
    channels = Site("c", "channels", (4,), (Member("w"),))
    assert str(SSVI().refuses(Term(channels, Rows()))).startswith("ssvi lets zeros come back")
    with pytest.raises(UsageError, match="solver ssvi: every=0"):
        SSVI(every=0)
    with pytest.raises(UsageError, match="solver ssvi: kl=-1"):
        SSVI(kl=-1.0)
