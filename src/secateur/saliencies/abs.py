"""|w|: plain magnitude, the Euclidean projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from secateur.contracts import Saliency


@dataclass(frozen=True)
class Abs(Saliency):
    """Score |w|, h = 1.

    Reference: Han et al., NeurIPS 2015, arXiv:1506.02626.
    """

    reference: ClassVar[str] = "Han et al., NeurIPS 2015, arXiv:1506.02626"

    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """None: all ones."""
        return None
