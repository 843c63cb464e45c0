"""Evolution: what a genome means, one try each, and a search that finds what chance and magnitude do not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from secateur import catalog
from secateur.contracts import Problem
from secateur.solvers.evolution import Evolution, _Answers
from secateur.testing.solvers import cases


def asked(trial: Any, label: str = "top-k") -> Problem:
    return replace(next(c for c in cases() if c.label == label).problem(), trial=trial)


@torch.no_grad()
def answer(solver: Any, problem: Problem) -> dict[str, Tensor]:
    return dict(solver.finish(solver.init(problem)).weights)


def test_a_genome_of_ones_is_the_answer_of_one_shot() -> None:
    for label in ("top-k", "n:m and top-k", "channels"):
        problem = asked(None, label)
        levels, near = _Answers(problem).of(_Answers(problem).genome(1.0))
        one_shot = catalog.load("solvers", "one_shot")()
        again = one_shot.finish(one_shot.init(asked(None, label)))
        assert levels == again.levels
        assert all(torch.equal(w, again.weights[k]) for k, w in near.items())


def test_rows_and_columns_that_are_off_go_first() -> None:
    """Of 4 x 8 weights 7 stay: in the two rows and five columns that are on, which hold ten."""
    problem = asked(None)
    rows, columns = [0, 1, 0, 1], [1, 1, 0, 1, 1, 0, 0, 1]
    near = _Answers(problem).of([*rows, *columns])[1]["w0"]
    on = torch.tensor(rows, dtype=torch.bool)[:, None] & torch.tensor(columns, dtype=torch.bool)
    assert int(near.count_nonzero()) == 7
    assert not bool(near[~on].any())
    best = problem.params["w0"].detach().masked_fill(~on, 0).abs().flatten().topk(7).indices
    assert set(best.tolist()) == set(near.flatten().nonzero().flatten().tolist())


def test_each_genome_is_tried_once_and_the_generator_of_others_is_left_alone() -> None:
    seen: list[tuple[Any, ...]] = []

    def trial(weights: dict[str, Tensor]) -> float:
        seen.append(tuple(weights["w0"].flatten().tolist()))
        return float(len(seen) % 5)

    random.seed(3)
    before = random.getstate()
    answer(Evolution(trials=40, population=8, flip=0.0), asked(trial))
    assert random.getstate() == before
    assert 8 <= len(seen) <= 40
    first = seen[0]
    assert first == tuple(answer(catalog.load("solvers", "one_shot")(), asked(None))["w0"].flatten().tolist())


def test_it_finds_rows_that_only_the_loss_tells() -> None:
    """The smallest weights are all that matters: no magnitude says so, and the search sees it in the trials."""
    problem = asked(None)
    w = problem.params["w0"].detach()
    gain = 1.0 / w.abs().clamp(min=1e-2)

    def trial(weights: dict[str, Tensor]) -> float:
        return -float((gain * (weights["w0"] != 0)).sum())

    def lost(trials: int) -> float:
        found = answer(Evolution(trials=trials, population=10), asked(trial))
        return trial(found)

    magnitude = trial(answer(catalog.load("solvers", "one_shot")(), asked(None)))
    assert lost(200) < lost(10) <= magnitude
    assert lost(200) < 2 * magnitude  # twice as much is kept of what matters
