"""Reading a statistic that a saliency needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from secateur.errors import UsageError

TINY = 1e-290  # keeps h = score / w^2 finite in float64 for weights that are (nearly) zero: theirs is then the least


def statistic(saliency: str, name: str, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
    """`stats[name]` in float64, or None when it is there but not known yet (before the first step).

    Raises UsageError when the caller did not provide it or its shape differs: a saliency never falls back silently.
    """
    if name not in stats:
        raise UsageError(
            f"saliency {saliency} needs the statistic {name!r}; got {', '.join(sorted(stats)) or 'none'}; "
            "use a solver that provides it"
        )
    value: Tensor | None = stats[name]
    if value is None:
        return None
    if value.shape != weight.shape:
        raise UsageError(
            f"saliency {saliency}: {name} has shape {list(value.shape)}, the weight {list(weight.shape)}; "
            "they must agree"
        )
    return value.detach().double()
