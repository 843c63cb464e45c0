"""Which extra a command needs, said clearly when it is missing."""

from __future__ import annotations

import importlib.util

from secateur.errors import MissingExtraError


def need(command: str, extra: str, *modules: str) -> None:
    """Raise MissingExtraError when one of `modules` cannot be found."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise MissingExtraError(
            f"secateur {command}: needs {', '.join(missing)}, which is not installed; "
            f"install it with: pip install 'secateur[{extra}]'"
        )
