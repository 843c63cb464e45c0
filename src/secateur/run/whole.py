"""Heads and units that a recipe asks for and that stay: found out on the dense net, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from secateur import graph
from secateur.contracts import Term
from secateur.recipe.naming import FAMILIES

if TYPE_CHECKING:
    from torch import nn

    from secateur.graph import Traced


def kept(module: nn.Module, traced: Traced, terms: Sequence[Term]) -> dict[str, str]:
    """Name of a site -> why the code does not run without a part of it: there heads or units become zero in place."""
    asked = [t.site for t in terms if t.constraint.view in FAMILIES and t.site.shape[0] > 1]
    return {s.name: why for s in asked if (why := graph.stays(module, traced, s))}


def notes(stays: Mapping[str, str]) -> list[str]:
    """What plan, log and report say of these (of `kept`)."""
    return [
        f"{name}: what is pruned becomes zero and stays in the file, stored only: the code does not run without it "
        f"({why})"
        for name, why in stays.items()
    ]
