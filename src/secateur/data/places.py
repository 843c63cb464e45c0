"""Finds the folder of one data set: given, from SECATEUR_DATA, downloaded before, or downloaded now if asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from secateur.data.download import Remote, fetch
from secateur.data.folder import data_folder
from secateur.errors import UsageError
from secateur.shell import saving


def open_set(
    name: str,
    data_dir: str | Path | None,
    is_there: Callable[[Path], bool],
    remote: Remote | None = None,
    download: bool = False,
) -> Path:
    """The folder whose files `is_there` accepts: data_dir/name, data_dir itself, or the download cache.

    Args:
        name: as `secateur.data.load` takes it; a family's folder is named by what stands before the colon.
        remote: where the set can be fetched from; None: nowhere.
        download: the user asked for that: what is not found is fetched into the cache.
    Raises:
        UsageError: with every place that was looked at, and with the download only where there is one.
    """
    base, room = data_folder(data_dir), name.partition(":")[0]
    places = [] if base is None else [base / room, base]
    cached = saving.cache_folder() / room
    for place in [*places, cached]:
        if place.is_dir() and is_there(place):
            return place
    if remote is not None and download:
        fetch(name, remote, cached)
        return cached
    looked = ", ".join(str(p) for p in [*places, cached])
    named = "" if base or os.environ.get("SECATEUR_DATA") else " (neither --data-dir nor SECATEUR_DATA is set)"
    fetching = f"or ask for the download (SECATEUR_DOWNLOAD=1, or secateur.data.load({name!r}, download=True))"
    by_hand = f"as help(secateur.data.{room}.load) says; this set has no download"
    raise UsageError(
        f"{name}: the data set is not at {looked}{named}; put its files there, {fetching if remote else by_hand}"
    )
