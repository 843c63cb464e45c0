"""Pretrained weights from safetensors files: found, checked, loaded. No pickle is ever read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from secateur.data.folder import data_folder
from secateur.errors import FormatError, UsageError


def weights_file(name: str, data_dir: str | Path | None = None) -> Path:
    """Path of `weights/<name>.safetensors` below the data folder; UsageError says where it was looked for."""
    folder = data_folder(data_dir)
    if folder is None:
        raise UsageError(
            f"{name}: pretrained weights need a data folder; give data_dir= (--data-dir) or set SECATEUR_DATA "
            f"to a folder that holds weights/{name}.safetensors"
        )
    path = folder / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise UsageError(f"{name}: no pretrained weights at {path}; put the file there or build with pretrained=False")
    return path


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy a safetensors file into `model`, in place; a leading `module.` in the names is dropped.

    Every parameter must be there with its shape and finite; batch-norm step counters may be missing.
    Raises UsageError (no such file, names or shapes of another model) or FormatError (damaged, NaN or infinity).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a .safetensors file") from error
    try:
        found = load(raw)
    except (SafetensorError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error})") from error
    found = {name.removeprefix("module."): value for name, value in found.items()}
    own = model.state_dict()
    missing = [n for n in own if n not in found and not n.endswith("num_batches_tracked")]
    extra = [n for n in found if n not in own]
    if missing or extra:
        raise UsageError(
            f"{path}: weights of another model; missing: {_some(missing)}, not in the model: {_some(extra)}"
        )
    for name, value in found.items():
        if value.shape != own[name].shape:
            raise UsageError(f"{path}: {name} is {list(value.shape)}, the model needs {list(own[name].shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FormatError(f"{path}: {name} holds NaN or infinity; train again or take another file")
    model.load_state_dict(found, strict=False)


def _some(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) if names else "none"
