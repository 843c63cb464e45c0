"""Metrics: fractions on a fixed set of examples, the model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.training.batches import Batch, call, example_count, pair

Evaluate = Callable[[nn.Module], float]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modes of all modules come back after."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def accuracy(batches: Iterable[Batch]) -> Evaluate:
    """model -> fraction of examples whose largest output is the target class."""

    def measure(model: nn.Module) -> float:
        right = seen = 0
        with evaluating(model):
            for inputs, targets in (pair(batch, "valid") for batch in batches):
                outputs = call(model, inputs)
                if not isinstance(outputs, Tensor) or outputs.dim() < 2 or targets.is_floating_point():
                    raise UsageError(
                        "evaluate: accuracy needs class scores [batch, classes] and whole-number targets; "
                        "pass evaluate=, a callable model -> float"
                    )
                right += int((outputs.argmax(-1) == targets).sum())
                seen += targets.numel()
        if seen == 0:
            raise UsageError("validation data: no examples; at least one is needed")
        return right / seen

    return measure


def mean_loss(batches: Iterable[Batch], loss: Callable[[Any, Any], Tensor]) -> Evaluate:
    """model -> mean of the task loss per example."""

    def measure(model: nn.Module) -> float:
        total, seen = 0.0, 0
        with evaluating(model):
            for inputs, targets in (pair(batch, "valid") for batch in batches):
                n = example_count(targets, inputs)
                total += float(loss(call(model, inputs), targets)) * n
                seen += n
        if seen == 0:
            raise UsageError("validation data: no examples; at least one is needed")
        return total / seen

    return measure
