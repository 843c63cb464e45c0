"""SET by hand: each sign gives its share, what comes is small and drawn, the last period has no update."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.one_weight import problem, step

from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.errors import UsageError
from secateur.solvers.set import SET


def test_each_sign_gives_its_share() -> None:
    start = torch.zeros(1, 64)
    start[0, :8] = torch.tensor([9.0, 8.0, 7.0, 6.0, -0.4, -0.3, -0.2, -0.1])
    p, solver = problem(start, TopK(), 8, 30), SET(every=10, part=0.5)
    with torch.no_grad():
        state = solver.init(p)
    for _ in range(10):
        state = step(solver, p, state, torch.zeros(1, 64), 0.1)
    w = p.params["w"].detach()
    assert w[0, [0, 1, 4, 5]].tolist() == pytest.approx([9.0, 8.0, -0.4, -0.3])  # not the four largest
    assert int(w.count_nonzero()) == 8
    new = w.clone()
    new[0, [0, 1, 4, 5]] = 0.0
    assert 0 < float(new.abs().max()) < 0.1 * 4 * float(w.square().mean().sqrt() * (64 / 4) ** 0.5)


def test_the_number_stays_and_the_last_period_is_quiet() -> None:
    g = torch.Generator().manual_seed(0)
    p, solver = problem(torch.randn(8, 8, generator=g), Blocks(rows=2), 10, 20), SET(every=5, part=0.4)
    with torch.no_grad():
        state = solver.init(p)
    changed = []
    for n in range(1, 21):
        before = state.held()["w"]
        state = step(solver, p, state, torch.zeros(8, 8), 0.1)
        assert int(state.held()["w"].sum()) == 20
        if not torch.equal(before, state.held()["w"]):
            changed.append(n)
    assert changed == [5, 10, 15]


def test_the_seed_decides() -> None:
    ends = []
    for seed in (0, 0, 1):
        p, solver = problem(torch.arange(1.0, 65.0).reshape(8, 8), TopK(), 16, 10, seed), SET(every=5)
        with torch.no_grad():
            state = solver.init(p)
        for _ in range(10):
            state = step(solver, p, state, torch.zeros(8, 8), 0.1)
        ends.append(p.params["w"].detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="noise"):
        SET(noise=-1.0)
