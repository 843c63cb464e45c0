"""Text that is small and means too much, values that no recipe means: one clear line, at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from secateur.errors import UsageError
from secateur.limits import QUOTED, quoted, read_yaml
from secateur.recipe import Recipe

INF, NAN = float("inf"), float("nan")


def bomb(form: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]" if form == "list" else "a0: &a0 {k0: 1}"]
    for i in range(1, 12):
        names = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} [{names}]" if form == "list" else f"a{i}: &a{i} {{<<: [{names}], k{i}: 1}}")
    return "\n".join([*lines, "model: *a11", "data: *a11"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb("list"), "more than 200000 values, aliases written out"),
        (bomb("merge"), "more than 200000 values, aliases written out"),
        ("model: &a [*a]", "the value of the anchor 'a' contains itself"),
        ("model: &a {b: [{c: *a}]}", "the value of the anchor 'a' contains itself"),
        ("seed: " + "[" * 5000, "nested deeper than 40"),
        ("seed: " + "9" * 5000, "a value that cannot be read"),
        ("seed: 2026-99-99", "a value that cannot be read: month must be in 1..12"),
        ("model: [", r"expected the node content, but found '<stream end>' \(line 1, column 9\)"),
        ("model: !!python/object/apply:os.abort []", "could not determine a constructor"),
        ("x" * 5_000_000, "at most 4000000 are read"),
    ],
)
def test_yaml_that_means_too_much_is_refused_before_it_is_made(text: str, said: str) -> None:
    begin = time.process_time()
    with pytest.raises(UsageError, match=said) as caught:
        Recipe.from_text(text)
    assert len(str(caught.value)) < 400
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - begin < 5
    if "x" * 5000 not in text:
        with pytest.raises(UsageError, match="not valid YAML"):
            Recipe.from_text("seed: 1", [f"data={text.partition(': ')[2]}"] if text.count("\n") == 0 else [f"a={text}"])


def test_anchors_of_a_sane_size_may_be_used() -> None:
    assert read_yaml("a: &a {x: [1, 2]}\nb: [*a, *a]\nc: {<<: *a, y: 3}") == {
        "a": {"x": [1, 2]},
        "b": [{"x": [1, 2]}] * 2,
        "c": {"x": [1, 2], "y": 3},
    }


SELF: list[Any] = []
SELF.append(SELF)
BASE: dict[str, Any] = {"model": "a:b", "data": "digits", "budget": {"nnz": 100}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"threads": 0}}, "training.threads"),
        ({"training": {"threads": -2}}, "training.threads"),
        ({"training": {"lr": INF}}, "training.lr: inf; a finite number below 2"),
        ({"training": {"checkpoint_seconds": NAN}}, "training.checkpoint_seconds: nan; a finite number"),
        ({"training": {"betas": [5, -1]}}, "training.betas"),
        ({"training": {"schedule": "cosin"}}, "schedule 'cosin' is unknown; known: "),
        ({"bench": {"seconds": INF}}, "bench.seconds: inf; a finite"),
        ({"bench": {"against": ["tensorflow"]}}, "bench.against"),
        ({"solver": {"name": "gradual", "epochs": INF}}, "solver.epochs: inf; a finite"),
        ({"solver": {"name": "gradual", "epochs": NAN}}, "solver.epochs: nan; a finite"),
        ({"solver": {"name": "gradual", "epochs": True}}, "solver.epochs: True; a number >= 0 is needed"),
        ({"solver": {"name": "gradual", "every": "often"}}, "solver.every: 'often'; gradual needs int or null there"),
        ({"solver": {"name": "gradual", "stages": {1: 2}}}, "solver.stages: {1: 2}; gradual needs "),
        ({"dense": {"epochs": NAN}}, "dense.epochs: nan; a finite"),
        ({"dense": {"epochs": "1"}}, "dense.epochs: '1'; a number > 0 is needed"),
        ({"objective": []}, "objective: List should have at least 1 item"),
        ({"polish_objective": []}, "polish_objective: List should have at least 1 item"),
        ({"objective": [{"name": "task", "weight": "x"}]}, r"objective\[0\].weight: 'x'; task needs float there"),
        ({"budget": {"nnz": INF}}, "budget.nnz: inf; a finite"),
        ({"budget": {"nbytes": "1e999KB"}}, "budget.nbytes: '1e999KB'; a positive value is needed"),
        ({"budget": {"nbytes": "1.2.3KB"}}, "budget.nbytes: '1.2.3KB' is not a number with a unit"),
        ({"seed": 10**400}, "seed: 1000.*; a finite number below"),
        ({"model": SELF}, "nested too deeply, too large, or it contains itself"),
        ({"constrain": [{"with": "topk", "level": {"nnz": SELF}}]}, "it contains itself"),
    ],
)
def test_values_that_no_recipe_means(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("{", r"\{")) as caught:
        Recipe.from_dict({**BASE, **changes})
    assert len(str(caught.value).splitlines()) == 1


LONG = "x" * 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {LONG: 1},
        {"training": {LONG: 1}},
        {"training": {"lr": LONG}},
        {"training": {"schedule": LONG}},
        {"budget": LONG},
        {"budget": {LONG: 1}},
        {"budget": {"nnz": LONG}},
        {"solver": {"name": LONG}},
        {"solver": {"name": "gradual", LONG: 1}},
        {"solver": {"name": "gradual", "epochs": LONG}},
        {"solver": {"name": "gradual", "every": LONG}},
        {"solver": {"name": "gradual", "epochs": [LONG] * 100}},
        {"constrain": [{"with": LONG}]},
        {"constrain": [{"with": {"name": "topk", LONG: [LONG]}}]},
        {"dense": {"epochs": LONG}},
        {"minimise": LONG},
    ],
)
def test_messages_repeat_little_of_what_came(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_dict({**BASE, **changes})
    message = str(caught.value)
    assert "x" * (QUOTED + 1) not in message
    assert len(message) < 600


def test_quoted_is_short_whatever_came() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (LONG, LONG.encode(), [LONG] * 1000, {LONG: {LONG: LONG}}, SELF, 10**9000, Odd(), list(range(10**6))):
        assert len(quoted(value)) <= QUOTED
    assert quoted("a'b") == repr("a'b")
    assert quoted({"a": [1, 2]}) == "{'a': [1, 2]}"
