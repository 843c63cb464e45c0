"""Batch-norm statistics measured anew, where weights were changed by a projection and not by a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.training.batches import Batch, call

BATCHES = 10  # of training data; every evaluation of a net with batch-norm pays for their forward passes


def has_norms(model: nn.Module) -> bool:
    """Does any layer keep batch statistics?"""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())


def remeasure(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Set the batch-norm statistics to those of the present weights, in place: the mean over `batches`.

    Pruning and quantisation move the distributions inside a network; running means from before are wrong then.
    Every batch counts alike; only batch-norm layers are in training mode, so dropout stays off. Layers that the
    batches do not reach keep their statistics, and a model without batch-norm is not run at all.

    Args:
        batches: of (inputs, targets).
    Returns:
        Copies of the buffers that were set, by name.
    Reference: Hubara et al., ICML 2021, arXiv:2006.10518 (batch-norm tuning).
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    if not norms:
        return {}
    before = {name: {k: b.clone() for k, b in m.named_buffers()} for name, m in norms.items()}
    with _measuring(model, list(norms.values())), torch.no_grad():
        for inputs, _ in batches:
            call(model, inputs)
    found: dict[str, Tensor] = {}
    for name, m in norms.items():
        reached = bool(m.num_batches_tracked)
        for key, buffer in m.named_buffers():
            if key == "num_batches_tracked" or not reached:
                buffer.copy_(before[name][key])
            found[f"{name}.{key}" if name else key] = buffer.clone()
    return found


@contextmanager
def by_batch(model: nn.Module) -> Iterator[None]:
    """Batch norms go by the batch that they see, all else is in evaluation mode; statistics and modes come back.

    Running statistics belong to other weights where weights are tried that were not trained.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [(b, b.clone()) for m in norms for b in m.buffers()]
    modes = {m: m.training for m in model.modules()}
    model.eval()
    for m in norms:
        m.training = True
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _measuring(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Fresh cumulative statistics, everything but the norms in evaluation mode; modes and momenta come back."""
    modes = {m: m.training for m in model.modules()}
    momenta: list[Any] = [m.momentum for m in norms]
    model.eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum, m.training = None, True
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
