"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Average:
    """decay_t = min(decay, (1 + t) / (10 + t)): short memory at the start, so no bias correction is needed.

    Inside one linear piece the average stays in the piece. Floating buffers (batch-norm statistics) are averaged
    with the weights, whole-number buffers are copied.
    """

    decay: float
    values: dict[str, Tensor] = field(default_factory=dict)
    n: int = 0

    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """One step of the average."""
        if not self.values:
            self.values = {k: v.detach().clone() for k, v in tensors.items()}
        self.n += 1
        keep = min(self.decay, (1 + self.n) / (10 + self.n))
        floating = [k for k, v in tensors.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.values[k] for k in floating], [tensors[k].detach() for k in floating], 1.0 - keep)
        for k, v in tensors.items():
            if not v.is_floating_point():
                self.values[k].copy_(v)
