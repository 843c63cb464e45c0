"""Example inputs by name: an array file or an import path, for recipes and commands."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.shell.importing import called, imported


def read(name: str) -> Any:
    """Inputs as a model is called with them.

    Args:
        name: `x.npy` (one tensor), `x.npz` (keywords by the arrays' names; positions where NumPy named them arr_0,
            arr_1, ...), or `package.module:attribute`, which is called when it is callable.
    Raises:
        UsageError: no such file, not plain arrays, or the user's code failed.
    """
    if not name.endswith((".npy", ".npz")):
        found = imported(name, "example_inputs", "my_package.nets:example, or a file x.npy or x.npz")
        return called(found, name, "example_inputs") if callable(found) and not isinstance(found, Tensor) else found
    try:
        tensors = {k: torch.from_numpy(np.asarray(a, order="C")) for k, a in _arrays(Path(name)).items()}
    except FileNotFoundError:
        raise UsageError(
            f"example_inputs {name}: no such file; give x.npy, x.npz or package.module:attribute"
        ) from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise UsageError(f"example_inputs {name}: not arrays of numbers that NumPy reads ({e})") from None
    if list(tensors) == [""]:
        return tensors[""]
    places = [f"arr_{i}" for i in range(len(tensors))]
    return tuple(tensors[k] for k in places) if set(places) == tensors.keys() else tensors


def _arrays(path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
    """The arrays of a file by name; '' for the only one of an .npy."""
    with path.open("rb") as file:  # np.load leaves a file that it cannot read open
        loaded = np.load(file, allow_pickle=False)
        return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
