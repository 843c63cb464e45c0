"""The task of all trainers here: which of three inputs is the largest, within 120 nonzeros."""

from typing import Any

import torch
from torch import Tensor

RECIPE: dict[str, Any] = {
    "constrain": [{"where": "*", "with": "topk"}],
    "budget": {"nnz": 120},
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.05},
}
LIKE = torch.zeros(2, 8)


def examples() -> tuple[Tensor, Tensor]:
    """64 inputs [64, 8] and their classes."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    return x, x[:, :3].argmax(1)
