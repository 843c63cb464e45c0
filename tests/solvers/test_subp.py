"""SUBP by hand: the score, the draw, and the way to the final level."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.one_weight import problem, step

from secateur.constraints.blocks import Blocks
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Term
from secateur.errors import UsageError
from secateur.solvers.subp import SUBP, angular, drawn
from secateur.types import Member, Site


def test_a_score_by_hand() -> None:
    # Two twins and one at a right angle, all of length 1: overlaps 2, 2, 1; |w| sums 1, 1, 1.
    w = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    found = angular(w, Blocks(rows=2).blocks((2, 4)), 1.0)
    # The block of zeros overlaps with all four.
    torch.testing.assert_close(found, torch.tensor([[1 / 3 - 2 / 9, 1 / 3 - 2 / 9, 1 / 3 - 1 / 9, -4 / 9]]))
    alone = angular(w, Blocks(rows=2).blocks((2, 4)), 0.0)
    torch.testing.assert_close(alone, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0]]))


def test_a_score_of_blocks_at_the_edge() -> None:
    w = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 1.0], [2.0, 2.0, 1.0]])
    found = angular(w, Blocks(rows=2, cols=2).blocks((3, 3)), 0.0)
    torch.testing.assert_close(found, torch.tensor([[7 / 8, 1 / 8], [4 / 5, 1 / 5]]))
    # [3 0; 0 4] against [0; 1] filled up: no common place; the last row: (2, 2) against (1, 0).
    overlap = angular(w, Blocks(rows=2, cols=2).blocks((3, 3)), 1.0)
    torch.testing.assert_close(overlap, found - 0.5)


def test_draws_follow_the_softmax() -> None:
    score, draws = torch.tensor([[0.0, 1.0, 2.0, -1.0]]), torch.Generator().manual_seed(0)
    n, temperature = 2000, 0.7
    counts = torch.bincount(torch.stack([drawn(score, temperature, draws).argmax() for _ in range(n)]), minlength=4)
    wanted = n * torch.softmax(score[0] / score.std(correction=0) / temperature, 0)
    assert float(((counts - wanted).square() / wanted).sum()) < 16.3  # chi^2 of 3 degrees, 0.1 %


@pytest.mark.parametrize("per_row", [False, True])
def test_the_way_to_the_final_level(per_row: bool) -> None:
    g = torch.Generator().manual_seed(0)
    own = Blocks(rows=2, per_row=per_row)
    p, solver = problem(torch.randn(8, 16, generator=g), own, 4 if per_row else 16, 100), SUBP(every=4)
    with torch.no_grad():
        state = solver.init(p)
    kept, distances = [], []
    for _ in range(100):
        state = step(solver, p, state, 0.1 * torch.randn(8, 16, generator=g), 0.1)
        kept.append(int(p.params["w"].count_nonzero()))
        distances.append(state.numbers()["sad"])
        assert all(bool(w.isfinite().all()) for w in state.latent.values())
    assert kept[:4] == [128] * 4
    assert 32 < kept[40] < 128
    assert kept[71:] == [32] * 29
    assert sorted(kept, reverse=True) == kept
    assert max(distances) > 0
    assert set(distances[71:]) == {distances[71]}  # after the last update the blocks stay
    if per_row:
        assert (p.params["w"].detach().reshape(4, 2, 16).abs().sum(1) > 0).sum(1).tolist() == [4] * 4


def test_what_is_away_follows_its_gradient_and_decays() -> None:
    p, solver = (
        problem(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), Blocks(rows=1), 2, 10),
        SUBP(every=1, start=0.0, end=0.1, decay=0.2),
    )
    with torch.no_grad():
        state = solver.init(p)
    state = step(solver, p, state, torch.zeros(1, 4), 0.5)
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]  # single weights have no angle: the largest stay
    state = step(solver, p, state, torch.full((1, 4), 0.1), 0.5)
    torch.testing.assert_close(state.latent["w"], torch.tensor([[3.95, 2.95, 1.75, 0.85]]))
    assert p.params["w"][0, 2:].tolist() == [0.0, 0.0]


def test_sets_without_blocks_beside_one_another_are_refused() -> None:
    site = Site("w", "linear", (8, 8), (Member("w"),))
    assert SUBP().refuses(Term(site, Blocks())) is None
    for own in (TopK(), Rows()):
        assert "blocks beside one another" in str(SUBP().refuses(Term(site, own)))


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="temperature"):
        SUBP(temperature=0.0)
