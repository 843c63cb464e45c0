"""Every objective of the catalog obeys the laws, and the laws notice what breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from secateur import catalog
from secateur.contracts import Objective
from secateur.objectives.distillation import Distillation
from secateur.objectives.task import Task
from secateur.testing.objectives import check_objective

VARIANTS: dict[str, list[Objective]] = {"distillation": [Distillation(), Distillation(1.0, match="outputs")]}
ALL = [
    pytest.param(o, id=f"{name}-{i}")
    for name in catalog.names("objectives")
    for i, o in enumerate(VARIANTS.get(name) or [catalog.load("objectives", name)()])
]


@pytest.mark.parametrize("objective", ALL)
def test_laws(objective: Objective) -> None:
    check_objective(objective)


class PerExample(Task):
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")


class Infinite(Task):
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        return (outputs - outputs).sum().log()


class HalfDetached(Task):
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        return outputs.square().mean() + outputs.detach().square().mean()


@dataclass(frozen=True)
class NoPupil(Task):
    needs_teacher: ClassVar[bool] = True


@dataclass(frozen=True)
class Secretly(Objective):
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        beside = 0.0 if teacher_outputs is None else (outputs - teacher_outputs).square().mean()
        return base_loss(outputs, targets) + beside  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Spoils(Task):
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        targets.zero_()
        return super().loss(outputs, targets, teacher_outputs, base_loss)


@dataclass(frozen=True)
class Divides(Task):
    """Its own idea of its weight: 0 times infinity."""

    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        return base_loss(outputs, targets) / torch.tensor(self.weight)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (PerExample(), "a scalar is needed"),
        (Infinite(), "the loss is"),
        (HalfDetached(), "the gradient says"),
        (NoPupil(), "do not matter"),
        (Secretly(), "outputs matter"),
        (Spoils(), "an input was changed"),
        (Divides(), "with weight 0"),
    ],
)
def test_what_breaks_a_law_is_noticed(broken: Objective, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_objective(broken)
