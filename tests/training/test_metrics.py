"""Accuracy counts what cross-entropy counts; loss and calibration stand beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from secateur.errors import UsageError
from secateur.training import metrics


class Given(nn.Module):
    """Its inputs are its answers."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def scores_of(outputs: Any, targets: Any) -> dict[str, float]:
    return metrics.accuracy([(outputs, targets)]).scores(Given())


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7), (4, 3, 6, 2)])
def test_classes_are_on_axis_one_as_in_cross_entropy(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    outputs = torch.randn(shape, generator=g)
    targets = torch.randint(0, 3, (shape[0], *shape[2:]), generator=g)
    found = scores_of(outputs, targets)
    by_hand = [
        int(max(range(3), key=lambda c: float(column[c])) == int(t))
        for column, t in zip(outputs.movedim(1, -1).reshape(-1, 3), targets.flatten(), strict=True)
    ]
    assert found["accuracy"] == sum(by_hand) / len(by_hand)
    assert found["loss"] == pytest.approx(float(F.cross_entropy(outputs, targets)), rel=1e-5)


def test_ignored_targets_are_not_counted() -> None:
    outputs = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    targets = torch.tensor([0, 0, -100])
    found = scores_of(outputs, targets)
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(float(F.cross_entropy(outputs, targets)), rel=1e-6)
    with pytest.raises(UsageError, match="no targets to count"):
        scores_of(outputs, torch.full((3,), -100))


def test_probabilities_as_targets_are_right_at_their_most_likely_class() -> None:
    outputs = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.2, 0.3]])
    found = scores_of(outputs, targets)
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(float(F.cross_entropy(outputs, targets)), rel=1e-6)


def test_the_calibration_error_by_hand() -> None:
    """Ten answers at 0.8 of which six are right, ten at 0.6 of which six are right: (0.2 x 10 + 0 x 10) / 20."""
    outputs = torch.cat([torch.log(torch.tensor([[p, 1 - p]])).expand(10, 2) for p in (0.8, 0.6)])
    targets = torch.tensor(([0] * 6 + [1] * 4) * 2)
    assert scores_of(outputs, targets)["calibration_error"] == pytest.approx(0.1, abs=1e-6)
    several = metrics.accuracy([(outputs[:7], targets[:7]), (outputs[7:], targets[7:])])
    assert several.scores(Given())["calibration_error"] == pytest.approx(0.1, abs=1e-6)


def test_a_good_accuracy_can_hide_a_broken_net() -> None:
    """All right and sure of nothing: accuracy 1, the loss near log 10, confidence some 0.9 too low."""
    targets = torch.arange(10)
    found = scores_of(0.01 * torch.eye(10), targets)
    assert found["accuracy"] == 1.0
    assert found["loss"] == pytest.approx(math.log(10), abs=0.01)
    assert found["calibration_error"] > 0.89


def test_scores_that_are_not_finite_are_wrong_and_have_no_loss() -> None:
    outputs = torch.tensor([[math.nan, 1.0], [0.0, 1.0]])
    assert all(scores_of(outputs, torch.tensor([c, 1])) == {"accuracy": 0.5} for c in (0, 1))


def test_scores_and_targets_that_do_not_belong_together_are_told() -> None:
    with pytest.raises(UsageError, match=r"got scores float32 \[4, 7, 3\] and targets int64 \[4, 7\]; pass evaluate="):
        scores_of(torch.randn(4, 7, 3), torch.zeros(4, 7, dtype=torch.long))
    with pytest.raises(UsageError, match=r"got scores tuple"):
        metrics.accuracy([((torch.ones(2, 2), torch.ones(2, 2)), torch.zeros(2))])(Tupled())


class Tupled(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y
