"""Lottery by hand: what is left, that it is the early weights to the bit, and the controls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.solvers.one_weight import problem, step
from torch import Tensor

from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.errors import UsageError
from secateur.solvers.lottery import Lottery
from secateur.types import Member, Site

START = torch.tensor([[0.5, -0.6, 0.7, -0.8, 0.9, -1.0, 1.1, -1.2]])
FORCE = torch.tensor([[-8.0, 7.0, -6.0, 5.0, -4.0, 3.0, -2.0, 1.0]])  # the small ones grow, away from zero


def run(solver: Lottery, steps: int) -> tuple[list[Tensor], Any]:
    """The weight after each of `steps` steps of 12."""
    p, seen = problem(START, TopK(), 2, 12), []
    with torch.no_grad():
        state = solver.init(p)
    for _ in range(steps):
        state = step(solver, p, state, FORCE, 0.1)
        seen.append(p.params["w"].detach().clone())
    return seen, state


def test_what_is_left_goes_back_to_the_bit() -> None:
    seen, state = run(Lottery(rounds=2), 12)  # three trainings of four steps: 8, 4, 2 weights
    assert [int(w.count_nonzero()) for w in seen] == [8] * 3 + [4] * 4 + [2] * 5
    assert torch.equal(seen[3], START * torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]]))  # chosen by what they grew to
    assert torch.equal(seen[7], START * torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]]))
    assert torch.equal(seen[11], seen[7] - 0.4 * FORCE * (seen[7] != 0)) or torch.allclose(
        seen[11], seen[7] - 0.4 * FORCE * (seen[7] != 0)
    )
    assert state.done == 1.0


def test_the_learning_rate_restarts_with_each_training() -> None:
    p, solver, restarts = problem(START, TopK(), 2, 12), Lottery(rounds=2), []
    with torch.no_grad():
        state = solver.init(p)
    for n in range(1, 13):
        state = step(solver, p, state, FORCE, 0.1)
        restarts += [n] * state.round_changed
    assert restarts == [4, 8]


def test_an_early_moment_may_come_later() -> None:
    seen, _ = run(Lottery(rounds=2, rewind=0.5), 8)
    assert torch.equal(seen[3], seen[1] * torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]]))
    assert torch.equal(seen[7], seen[1] * torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]]))


def test_controls() -> None:
    early, shuffled, trained = (run(Lottery(rounds=2, back_to=to), 4)[0][-1] for to in ("early", "shuffled", "trained"))  # type: ignore[arg-type]
    assert torch.equal(early != 0, shuffled != 0)
    assert not torch.equal(early, shuffled)
    assert {abs(v) for v in shuffled[shuffled != 0].tolist()} <= {abs(v) for v in START.flatten().tolist()}
    assert torch.allclose(trained, (START - 0.4 * FORCE) * (early != 0))


def test_a_run_that_is_cut_short_is_pruned_at_once() -> None:
    _, state = run(Lottery(rounds=2), 5)
    with torch.no_grad():
        answer = Lottery(rounds=2).finish(state)
    assert answer.weights["w"].count_nonzero() == 2
    assert answer.levels == {"w": 2}


def test_what_has_no_support_is_refused() -> None:
    term = Term(Site("w", "linear", (4, 4), (Member("w"),)), LowRank())
    assert "lowrank" in str(Lottery().refuses(term))


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="rounds"):
        Lottery(rounds=0)
    with pytest.raises(UsageError, match="back_to"):
        Lottery(back_to="start")  # type: ignore[arg-type]
