"""Says which values a weight may take: one file a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secateur.contracts import Constraint

RENAMED = {"both": "all_of"}  # names that recipes and records of earlier versions hold


def together(parts: Sequence[Constraint]) -> Constraint:
    """The set of what is in all `parts`; one part is itself. UsageError: these do not go together."""
    from secateur.constraints.all_of import AllOf  # lazily: names of sets are read without torch

    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))
