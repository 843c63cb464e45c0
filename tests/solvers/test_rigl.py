"""RigL by hand: who gives way, who comes and with what; and that it finds a support that magnitude does not."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.one_weight import problem, step

from secateur.constraints.blocks import Blocks
from secateur.constraints.lowrank import LowRank
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Term
from secateur.errors import UsageError
from secateur.solvers._regrow import survivors
from secateur.solvers.rigl import RigL
from secateur.types import Member, Site


def test_an_exchange_by_hand() -> None:
    p, solver = problem(torch.tensor([[4.0, -3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2]]), TopK(), 4, 100), RigL(every=10)
    with torch.no_grad():
        state = solver.init(p)
    g = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.1, -0.9, 0.2, 0.3]])
    for _ in range(9):
        state = step(solver, p, state, g, 0.1)
    assert p.params["w"].tolist() == [[4.0, -3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]]  # what is away does not move
    state = step(solver, p, state, g, 0.1)  # the tenth: one of four goes, for 0.3 / 2 (1 + cos(pi 10 / 75)) is 0.287
    assert p.params["w"].tolist() == [[4.0, -3.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert state.held()["w"].tolist() == [[True, True, True, False, False, True, False, False]]
    assert state.numbers()["mask_churn"] == 0.25
    state = step(solver, p, state, g, 0.1)
    assert p.params["w"][0, 5].item() == pytest.approx(0.09)  # free now, from zero
    assert p.params["w"].count_nonzero() == 4


def test_what_goes_and_comes_at_once_keeps_its_value() -> None:
    p, solver = problem(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0]]), TopK(), 4, 100), RigL(every=1)
    with torch.no_grad():
        state = solver.init(p)
    state = step(solver, p, state, torch.tensor([[0.0, 0.0, 0.0, 5.0, 0.1, 0.2]]), 0.01)
    assert p.params["w"].tolist() == [[4.0, 3.0, 2.0, pytest.approx(0.95), 0.0, 0.0]]


@pytest.mark.parametrize(("memory", "comes"), [(1, 4), (20, 5)])
def test_one_batch_may_err_and_many_agree(memory: int, comes: int) -> None:
    start = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0]])
    p, solver = problem(start, TopK(), 4, 100), RigL(every=20, part=0.5, memory=memory)
    with torch.no_grad():
        state = solver.init(p)
    for n in range(20):
        noise = 0.9 * (-1) ** n
        state = step(solver, p, state, torch.tensor([[0.0, 0.0, 0.0, 0.0, noise, 0.3]]), 0.01)
    assert state.held()["w"][0].nonzero().flatten().tolist() == [0, 1, 2, comes]


def test_the_part_falls_along_a_cosine_and_ends() -> None:
    solver, p = RigL(every=10, part=0.4, until=0.5), problem(torch.ones(1, 4), TopK(), 2, 80)
    parts = [solver._part(p, n) for n in (5, 10, 20, 30, 40, 50)]
    assert parts == pytest.approx([0.0, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5), 0.0, 0.0])


def test_what_is_away_gets_no_gradient_so_that_it_comes_without_momentum() -> None:
    p, solver = problem(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0]]), TopK(), 4, 100), RigL(every=2)
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(2):
            p.params["w"].grad = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.9, 0.2]])
            solver.before_step(state)
            assert p.params["w"].grad.tolist() == [[pytest.approx(0.1)] * 4 + [0.0, 0.0]]
            state = solver.step(state)
    assert state.held()["w"][0, 4]


@pytest.mark.parametrize(
    ("constraint", "level", "shape"),
    [(TopK(), 20, (8, 8)), (NM(), 1, (4, 16)), (Blocks(rows=2), 12, (8, 8)), (Blocks(rows=2, per_row=True), 3, (8, 8))],
)
def test_units_are_exchanged_whole_and_their_number_stays(
    constraint: Constraint, level: int, shape: tuple[int, int]
) -> None:
    g = torch.Generator().manual_seed(0)
    p, solver = problem(torch.randn(shape, generator=g), constraint, level, 40), RigL(every=4, part=0.5)
    with torch.no_grad():
        state = solver.init(p)
    before = n = state.held()["w"]
    moved = 0
    for _ in range(40):
        state = step(solver, p, state, torch.randn(shape, generator=g), 0.1)
        now = state.held()["w"]
        assert int(now.sum()) == int(n.sum())
        assert constraint.contains(p.params["w"].detach(), level)
        assert torch.equal(constraint.mask(now.float(), level) != 0, now)  # no unit in parts
        moved += int((now & ~before).sum())
        before = now
    assert moved >= 0.2 * int(n.sum())


def test_a_share_of_blocks_goes() -> None:
    strength = torch.tensor([[5.0, 1.0, 4.0, 0.5, 9.0, 9.0], [5.0, 2.0, 1.0, 0.5, 9.0, 9.0]])
    site = Site("w", "linear", (2, 6), (Member("w"),))
    held = torch.tensor([[True] * 4 + [False] * 2] * 2)
    term = Term(site, Blocks(rows=2), 4, True)
    kept = survivors((term,), {"w": 4}, {"w": held}, {"w": strength}, 0.5)["w"]
    assert kept.tolist() == [[True, False, True, False, False, False]] * 2  # sums of squares 50, 5, 17, 0.5


def test_a_weight_that_matters_but_is_small_comes_in() -> None:
    """The smallest weight of the optimum is the one that others cannot stand in for."""
    best = torch.tensor([[1.0, 1.1, 0.9, 0.8]], dtype=torch.float64)
    hessian = torch.tensor([[1.0, 0.98, 0, 0], [0.98, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]], dtype=torch.float64)
    lost = {}
    for part in (0.0, 0.9):
        p, solver = problem(best, TopK(), 2, 60), RigL(every=10, part=part)
        with torch.no_grad():
            state = solver.init(p)
        for _ in range(60):
            gap = p.params["w"].detach() - best
            state = step(solver, p, state, gap @ hessian, 0.3)
        gap = p.params["w"].detach() - best
        lost[part] = float(gap @ hessian @ gap.T)
    assert lost[0.9] < 0.6 * lost[0.0]


def test_what_cannot_come_back_is_refused() -> None:
    channels = Site("c", "channels", (4,), (Member("w"),))
    assert "norms and biases" in str(RigL().refuses(Term(channels, Rows())))
    plain = Site("w", "linear", (4, 4), (Member("w"),))
    assert "lowrank" in str(RigL().refuses(Term(plain, LowRank())))
    assert RigL().refuses(Term(plain, Rows())) is None


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="part"):
        RigL(part=1.0)
