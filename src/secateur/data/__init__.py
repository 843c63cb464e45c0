"""Data sets by name, and the in-memory batches that training reads.

`load("mnist")` gives `Splits(train, valid, test)`: normalised float32 inputs (word numbers for text), int64 labels,
split once and for all.
"""

from __future__ import annotations

import importlib
import inspect
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from secateur.data.folder import data_folder
from secateur.data.spec import Spec, Splits, as_splits, check_batches
from secateur.data.tensors import TensorData
from secateur.errors import UsageError
from secateur.limits import quoted
from secateur.shell.importing import DATA_SETS as NAMES
from secateur.shell.importing import called, imported
from secateur.shell.importing import is_data_path as is_path


def load(
    name: str, data_dir: str | Path | None = None, *, batch_size: int | None = None, download: bool | None = None
) -> Splits:
    """The splits of a set named in `NAMES`, or of a user's own loader `package.module:function`.

    Args:
        name: a known set, or an import path to a function (called without arguments) or an object: `Splits`,
            (train, valid) or (train, valid, test), each a re-iterable of (inputs, targets). A function that has an
            argument `data_dir` gets the folder given here.
        data_dir: the folder with the sets; default the environment variable SECATEUR_DATA.
        batch_size: of the training part; default the set's own. Not for import paths.
        download: fetch a known set that is not found, hashes checked; default whether SECATEUR_DOWNLOAD=1 is set.
    Raises:
        UsageError: unknown name, nothing there. FormatError: files that are damaged or of another layout.
    """
    if is_path(name):
        return as_splits(_import(name, data_dir), name)
    if name not in NAMES:
        near = get_close_matches(name[:80], NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"data: no set named {quoted(name)}; known: {', '.join(NAMES)}, "
            f"or your own as package.module:function{hint}"
        )
    if download is None:
        download = os.environ.get("SECATEUR_DOWNLOAD") == "1"
    options: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    room, _, member = name.partition(":")
    loader = importlib.import_module(f"secateur.data.{room}").load
    return loader(*filter(None, [member]), data_dir, download=download, **options)  # type: ignore[no-any-return]


def spec(name: str) -> Spec:
    """The facts about a set with one form: shape, classes, normalisation."""
    if name not in NAMES or ":" in name:
        raise UsageError(f"data: no set named {name!r}; known: {', '.join(n for n in NAMES if ':' not in n)}")
    return importlib.import_module(f"secateur.data.{name}").SPEC  # type: ignore[no-any-return]


def _import(path: str, data_dir: str | Path | None) -> Any:
    """The object at `package.module:attribute`, called where it is callable, with `data_dir` where it asks for that."""
    found = imported(path, "data", "my_package.data:loaders")
    if not callable(found) or isinstance(found, Splits):
        return found
    asks = inspect.isfunction(found) and "data_dir" in inspect.signature(found).parameters
    return called(found, path, "data", {"data_dir": data_dir} if asks and data_dir is not None else None)


__all__ = [
    "NAMES",
    "Spec",
    "Splits",
    "TensorData",
    "as_splits",
    "check_batches",
    "data_folder",
    "is_path",
    "load",
    "spec",
]
