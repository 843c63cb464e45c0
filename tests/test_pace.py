"""The learning rate that a run takes where its recipe names none."""

from __future__ import annotations

import pytest

from secateur.recipe.sections import Training
from secateur.run.pace import learning_rate


@pytest.mark.parametrize(
    ("steps", "rate", "expected"),
    [
        (220, 16.0, 3e-3),  # wants 1,600: seven times, three at most
        (800, 16.0, 2e-3),
        (1600, 16.0, 1e-3),
        (80_000, 16.0, 1e-3),
        (400, 4.0, 2e-3),
        (20, 3.9, 1e-3),  # mild
        (20, 1.0, 1e-3),  # no limit
        (0, 16.0, 1e-3),
    ],
)
def test_few_steps_for_a_large_cut_raise_the_rate(steps: int, rate: float, expected: float) -> None:
    assert learning_rate(Training(), steps, rate) == pytest.approx(expected)
    assert learning_rate(Training(optimizer="adamw"), steps, rate) == pytest.approx(expected)


def test_a_rate_that_is_named_stays_and_sgd_has_none_to_scale() -> None:
    assert learning_rate(Training(lr=1e-3), 20, 64.0) == 1e-3
    assert learning_rate(Training(lr=0.5), 20_000, 64.0) == 0.5
    assert learning_rate(Training(optimizer="sgd"), 20, 64.0) == 1e-3
