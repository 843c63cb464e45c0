"""The list of checks that `verify` answers."""

from __future__ import annotations

from typing import Any


class Checks:
    """The list that `verify` answers."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def equal(self, name: str, claimed: Any, found: Any, within: float = 0.0) -> None:
        """`found` must be what was claimed; numbers may differ by `within`."""
        numbers = within > 0 and claimed is not None
        self.add(name, claimed, found, abs(found - claimed) <= within if numbers else claimed == found)

    def add(self, name: str, claimed: Any, found: Any, passed: bool | None, note: str = "") -> None:
        """One row."""
        self.rows.append({"name": name, "passed": passed, "claimed": claimed, "found": found, "note": note})

    def nothing_wrong(self, name: str, n: int, wrong: list[str], note: str = "") -> None:
        """`n` things were looked at; `wrong` has a sentence for each that is not as claimed, `note` is said if none."""
        self.add(name, f"{n} of {n}", f"{n - len(wrong)} of {n}", not wrong, "; ".join(wrong[:3]) or note)

    def skip(self, name: str, why: str, claimed: Any = None) -> None:
        """A check that could not be made."""
        self.add(name, claimed, None, None, why)
