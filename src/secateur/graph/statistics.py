"""Statistics of a network on data."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from secateur.errors import UsageError
from secateur.graph.capture import arguments


def recalibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """A copy whose batch-norm statistics are those of its present weights, averaged over `batches`.

    Pruning and quantisation move the distributions inside a network; running means from before then are wrong.
    Every batch counts alike (cumulative average); only batch-norm layers are put into training mode, so dropout stays
    off. A model without batch-norm comes back as a plain copy.

    Args:
        batches: of inputs, each a tensor, a tuple or a dict; at least one.
    Raises:
        UsageError: no batch was given.
    """
    out = copy.deepcopy(model)
    norms = [m for m in out.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    modes = [(m, m.training) for m in out.modules()]
    momenta = [m.momentum for m in norms]
    for m, _ in modes:
        m.training = False
    for n in norms:
        n.reset_running_stats()
        n.momentum, n.training = None, True
    seen = 0
    devices = sorted({p.device.index or 0 for p in out.parameters() if p.device.type == "cuda"})
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        for inputs in batches:
            args, kwargs = arguments(inputs)
            out(*args, **kwargs)
            seen += 1
    if not seen:
        raise UsageError("recalibrate: no batch was given; at least one is needed to estimate batch-norm statistics")
    for m, mode in modes:
        m.training = mode
    for n, momentum in zip(norms, momenta, strict=True):
        n.momentum = momentum
    return out
