"""Example inputs by name: an array file or an import path, for recipes and commands."""

from __future__ import annotations

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
        loaded = np.load(Path(name), allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
        tensors = {k: torch.from_numpy(np.asarray(a, order="C")) for k, a in arrays.items()}
    except FileNotFoundError:
        raise UsageError(
            f"example_inputs {name}: no such file; give x.npy, x.npz or package.module:attribute"
        ) from None
    except (OSError, ValueError, TypeError, EOFError) as e:
        raise UsageError(f"example_inputs {name}: not arrays of numbers that NumPy reads ({e})") from None
    if list(tensors) == [""]:
        return tensors[""]
    places = [f"arr_{i}" for i in range(len(tensors))]
    return tuple(tensors[k] for k in places) if set(places) == tensors.keys() else tensors
