"""One plot of a report, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One plot: where it goes (`name` = element id), what a reader without the plot is told, and what is drawn.

    `narrow`: another layout and height for a phone.
    """

    name: str
    title: str
    text: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int
    narrow: tuple[dict[str, Any], int] | None = None
