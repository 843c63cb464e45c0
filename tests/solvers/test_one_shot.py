"""Points on the way: each is what one-shot alone would give there, and training moves the weights that all share."""

from __future__ import annotations

import pytest
import torch

from secateur import catalog
from secateur.constraints.codebook import Codebook
from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.recipe import Recipe, build_constraint
from secateur.solvers.one_shot import OneShot
from secateur.types import Level, Member, Site, Weights

SITE = Site("w", "linear", (4, 8), (Member("w"),))
START = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
COUNTS = {0.25: 20, 0.5: 12, 1.0: 4}  # the weights kept at each tightness


def problem() -> Problem:
    def allocate(weights: Weights, importance: object, tightness: float) -> dict[str, Level]:
        return {"w": COUNTS[tightness]}

    return Problem({"w": START.clone(), "b": torch.ones(4)}, (Term(SITE, TopK(), 4, True),), allocate, 3)


def test_each_point_is_the_projection_at_its_level() -> None:
    asked, solver = problem(), OneShot(points=(0.25, 0.5))
    answer = solver.finish(solver.init(asked))
    assert [p.levels for p in answer.points] == [{"w": 20}, {"w": 12}]
    assert answer.levels == {"w": 4}
    for point in (*answer.points, answer):
        assert torch.equal(point.weights["w"], TopK().project(START, point.levels["w"]))


def test_what_is_trained_is_shared_and_the_rest_stays() -> None:
    asked, solver = problem(), OneShot(points=(0.25, 0.5))
    state = solver.init(asked)
    for p in asked.params.values():
        p.add_(1.0)
    answer = solver.finish(solver.step(state))
    inner = TopK().project(START, 4) != 0
    torch.testing.assert_close(answer.weights["w"], (START + 1) * inner)
    for point in answer.points:
        outer = TopK().project(START, point.levels["w"])
        assert torch.equal(point.weights["w"], answer.weights["w"].where(inner, outer))
        assert torch.equal(point.weights["b"], torch.full((4,), 2.0))


def test_no_points_unless_asked() -> None:
    assert OneShot().finish(OneShot().init(problem())).points == ()


@pytest.mark.parametrize("points", [(0.5, 0.5), (0.7, 0.3), (0.0,), (1.0,)])
def test_points_rise_between_dense_and_the_answer(points: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="rising numbers between 0 and 1"):
        OneShot(points=points)


def test_sets_that_do_not_nest_are_refused() -> None:
    asked = OneShot(points=(0.5,))
    joint = build_constraint(["topk", "codebook"])
    assert [asked.refuses(Term(SITE, c)) for c in (TopK(), Codebook(), joint)] == [None] * 3
    assert "supports nest" in str(asked.refuses(Term(SITE, LowRank())))
    assert OneShot().refuses(Term(SITE, LowRank())) is None
    assert Recipe.from_dict({"solver": {"name": "one_shot", "points": [0.3, 0.6]}}).build_solver() == OneShot(
        (0.3, 0.6)
    )
    assert catalog.load("solvers", "one_shot") is OneShot
