"""HESSO by hand: the fading ends at zero, the score knows who grows, CRIC puts the weights back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from tests.solvers.one_weight import moved, problem
from torch import Tensor

from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Problem, Term
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.solvers.hesso import Hesso
from secateur.types import Member, Site

START = torch.tensor([[3.0, 6.0], [4.0, 8.0]])
STILL = torch.zeros(2, 2)

COLUMNS = Blocks(rows=2)


def tried(p: Problem) -> Problem:
    """With a loss for CRIC."""
    return replace(p, trial=lambda weights: 1.0)


def test_the_fading_ends_at_zero_in_equal_steps() -> None:
    solver = Hesso(periods=1, start=0.1, end=0.5)  # one free step, then a period of four
    for n, share in ((1, 1.0), (2, 0.75), (3, 0.5), (4, 0.25), (5, 0.0), (7, 0.0)):
        w = moved(solver, problem(START, COLUMNS, 1, 10), *[STILL] * n)
        torch.testing.assert_close(w[:, 0], share * START[:, 0], msg=f"after {n} steps")
        torch.testing.assert_close(w[:, 1], START[:, 1])
    w = moved(solver, problem(START, COLUMNS, 1, 10), *[STILL] * 5, torch.ones(2, 2))
    assert w[:, 0].tolist() == [0.0, 0.0]  # what is gone stays gone


def test_the_score_by_hand() -> None:
    p = problem(START, COLUMNS, 1, 10)
    with torch.no_grad():
        state = Hesso().init(p)
        p.params["w"] += torch.tensor([[0.3, 0.0], [0.4, -1.0]])  # d along x, and with <x, d> = -8
        (found,) = state.scores().values()
    cos = 1 - 8 / (10 * 1)
    terms = torch.tensor([[5.0, 10.0], [2.5, 5.0], [2.0, cos], [2.5, 8.0], [2.5**2 / 2, 32.0]])
    torch.testing.assert_close(found, (terms / terms.norm(dim=1, keepdim=True)).mean(0))


def test_of_equal_units_the_one_that_shrinks_goes() -> None:
    # 1/2 |w - best|^2 with the first column on its way to zero and the second on its way out, both of norm 5 now.
    start, best = torch.tensor([[3.0, 3.0], [4.0, 4.0]]), torch.tensor([[0.0, 6.0], [0.0, 8.0]])
    p, solver = problem(start, COLUMNS, 1, 10), Hesso(periods=1, start=0.1, end=0.5)
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(6):
            p.params["w"] -= 0.1 * (p.params["w"] - best)
            state = solver.step(state)
    assert p.params["w"][:, 0].tolist() == [0.0, 0.0]
    assert bool((p.params["w"][:, 1] > 3.0).all())


def test_cric_puts_the_weights_back_and_looks_on_the_way() -> None:
    p, solver = tried(problem(START, COLUMNS, 1, 20)), Hesso(periods=1, start=0.05, end=0.8, cycles=2, samples=3)
    with torch.no_grad():
        state, seen = solver.init(p), []
        for _ in range(6):
            state = solver.step(state)
            seen.append(float(p.params["w"][0, 0]))
    # Free, then a cycle of three samples that ends where it began; nothing new among the least: no second cycle.
    assert seen[:4] == pytest.approx([3.0, 2.0, 1.0, 3.0])
    assert state.cycle == 2
    assert seen[4] == pytest.approx(3.0 * 11 / 12)  # the period: the steps up to the sixteenth are its own
    assert seen[5] == pytest.approx(3.0 * 10 / 12)


def test_cric_leaves_the_periods_a_step() -> None:
    # Of ten steps the second to the fifth may prune: a cycle of three samples fits, one of four does not.
    for samples, gone_after in ((3, 5), (4, 5)):
        p = tried(problem(START, COLUMNS, 1, 10))
        w = moved(Hesso(periods=1, start=0.1, end=0.5, cycles=1, samples=samples), p, *[STILL] * gone_after)
        assert w[:, 0].tolist() == [0.0, 0.0]
        assert w[:, 1].tolist() == [6.0, 8.0]
    assert Hesso().needs == frozenset()
    assert Recipe.from_dict({"solver": {"name": "hesso", "cycles": 1}}).needs >= {"trial"}


def test_the_loss_without_a_layers_lowest_units_by_hand() -> None:
    # Four single weights and two columns; the loss counts what is away, ten times in the second layer.
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), START
    sets: tuple[tuple[str, Constraint], ...] = (("a", TopK()), ("b", COLUMNS))
    terms = tuple(Term(Site(k, "linear", (2, 2), (Member(k),)), of, 1, True) for k, of in sets)
    params = {"a": a.clone().requires_grad_(), "b": b.clone().requires_grad_()}

    def trial(weights: Mapping[str, Tensor]) -> float:
        return sum((10.0 if k == "b" else 1.0) * float((w == 0).sum()) for k, w in weights.items())

    p = Problem(params, terms, lambda weights, h, t: {"a": 1, "b": 1}, 10, trial=trial)
    with torch.no_grad():
        state = Hesso(cycles=1).init(p)
        found = state.layer_term(state.scores())
    # One, two, three of four weights are away; no column, one, one of two: each 2 weights.
    each = torch.tensor([(1 + 2 + 3) / 3 / 4, (0 + 20 + 20) / 3 / 2])
    norm = float((4 * each[0] ** 2 + 2 * each[1] ** 2).sqrt())
    assert list(found.values()) == pytest.approx([float(x) / norm / 5 for x in each])


def test_of_parts_of_an_output_the_sign_of_a_step_says_nothing() -> None:
    """A falling output moves all its weights one way: by the cosine its negative ones alone would stay."""
    p = problem(torch.tensor([[3.0, -1.0, 2.0, -1.5]]).repeat(2, 1), TopK(), 4, 10)
    down = torch.full((2, 4), -0.01)
    with torch.no_grad():
        state = Hesso().init(p)
        p.params["w"] += down
        (found,) = state.scores().values()
    size, step = p.params["w"].detach() - down, 0.01
    terms = torch.stack([size.abs(), size.abs(), torch.ones(2, 4), size.abs() * step, (size * step).square() / 2])
    torch.testing.assert_close(found.view(2, 4), (terms / terms.norm(dim=(1, 2), keepdim=True)).mean(0))
    w = moved(Hesso(periods=1, start=0.1, end=0.5), p, *[down] * 5)
    assert (w != 0).tolist() == [[True, False, True, False]] * 2


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="cycles"):
        Hesso(cycles=-1)
