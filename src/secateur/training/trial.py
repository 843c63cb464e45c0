"""The loss of a net with other weights in the place of its own, for solvers that search (`Problem.trial`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from secateur.training import norms
from secateur.types import Weights

BATCHES = 2  # of training data: a search of a hundred trials then costs as much as two hundred forward passes


@dataclass(frozen=True)
class Trial:
    """weights -> loss; the net is as before when it has answered, to the bit.

    Batch norms go by the batch's own statistics, everything else is in evaluation mode.

    Args:
        model: whose parameters the weights name, all of them or some.
        loss: of `model` as it stands, a mean over batches that stay the same.
        told: called before each trial, for progress and interrupts.
    """

    model: nn.Module
    loss: Callable[[], float]
    told: Callable[[], None] = lambda: None

    @torch.no_grad()
    def __call__(self, weights: Weights) -> float:
        self.told()
        own = dict(self.model.named_parameters())
        before = {k: own[k].detach().clone() for k in weights}
        try:
            for name, value in weights.items():
                own[name].copy_(value)
            with norms.by_batch(self.model):
                return self.loss()
        finally:
            for name, value in before.items():
                own[name].copy_(value)
