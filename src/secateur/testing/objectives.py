"""Laws of an objective: a finite scalar, its gradient true; nothing where its weight is 0; a teacher only if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.contracts import Objective
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Setting, combined_loss

_STEP, _WITHIN = 1e-6, 1e-5  # central differences in float64: errors of step^2 and of rounding / step


def check_objective(objective: Objective, seed: int = 0) -> None:
    """Raise AssertionError when an objective breaks a law; the message names it."""
    name = type(objective).__name__
    g = torch.Generator().manual_seed(seed)
    outputs, teacher, other = (torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(3))
    targets = torch.randint(0, 4, (5,), generator=g)
    taught = teacher if objective.needs_teacher else None

    def loss(now: Tensor, by: Tensor | None = taught) -> Tensor:
        return objective.loss(now, targets, by, cross_entropy)

    before = outputs.clone(), targets.clone(), teacher.clone()
    live = outputs.clone().requires_grad_()
    value = loss(live)
    assert value.shape == (), f"{name}: a scalar is needed, got shape {list(value.shape)}"
    assert bool(value.isfinite()), f"{name}: the loss is {float(value.detach())}"
    assert torch.equal(value.detach(), loss(outputs)), f"{name}: same call, different bits"
    assert all(torch.equal(a, b) for a, b in zip(before, (outputs, targets, teacher), strict=True)), (
        f"{name}: an input was changed"
    )
    (gradient,) = torch.autograd.grad(value, live)
    direction = torch.randn(5, 4, generator=g, dtype=torch.float64)
    rise = float(loss(outputs + _STEP * direction) - loss(outputs - _STEP * direction)) / (2 * _STEP)
    slope = float((gradient * direction).sum())
    assert abs(rise - slope) <= _WITHIN * max(abs(rise), 1.0), f"{name}: the gradient says {slope:g}, the loss {rise:g}"
    differs = not torch.equal(value.detach(), loss(outputs, other))
    assert differs == objective.needs_teacher, (
        f"{name}: needs_teacher is {objective.needs_teacher}, and the teacher's outputs {'' if differs else 'do not '}"
        "matter"
    )
    _weighs_nothing(objective, name)


def _weighs_nothing(objective: Objective, name: str) -> None:
    """With weight 0 it adds nothing to what is minimised, nor to its gradient."""
    g = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        net, teacher = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
        for p in (*net.parameters(), *teacher.parameters()):
            p.copy_(torch.randn(p.shape, generator=g))
    inputs, targets = torch.randn(5, 3, generator=g), torch.randint(0, 4, (5,), generator=g)
    setting = Setting(net, _NoBatches(), cross_entropy, lambda m: 0.0, True, 0, Ledger())
    setting.teacher = teacher if objective.needs_teacher else None
    total = combined_loss(setting, [replace(objective, weight=0.0)], 0.0, inputs, targets)
    value = float(total.detach())
    assert value == 0.0, f"{name}: with weight 0 it is {value}"
    gradients = torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
    assert not any(v is not None and v.any() for v in gradients), f"{name}: with weight 0 it has a gradient"


class _NoBatches:
    """There is no training set here."""

    def __len__(self) -> int:
        return 0

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Any]:
        """Nothing."""
        return iter(())
