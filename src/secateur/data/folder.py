"""Where data sets lie: the folder the user names, else the environment variable SECATEUR_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from secateur.errors import UsageError


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """`data_dir`, else SECATEUR_DATA, else None. A folder that was named but does not exist is a UsageError."""
    source = "data_dir"
    if data_dir is None:
        given, source = os.environ.get("SECATEUR_DATA", ""), "SECATEUR_DATA"
        if not given:
            return None
        data_dir = given
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"{source}: {folder} is not a folder; name one that holds the data sets (mnist/, cifar10/, ...)"
        )
    return folder
