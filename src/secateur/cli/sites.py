"""`secateur sites MODEL`: what can be named in a recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.errors import UsageError
from secateur.limits import quoted

if TYPE_CHECKING:
    from torch import nn

_BATCH = 2  # examples to trace with


def command(
    model: str = typer.Argument(..., help="A recipe, or a model as package.module:attribute (secateur.zoo:lenet5)."),
    shape: list[str] = typer.Option(
        [], "--shape", metavar="CxHxW", help="One example's input, as 3x32x32 or 128:int64; once per input."
    ),
    data: str | None = typer.Option(
        None, "--data", help="Inputs from a data set, as mnist or my_package.data:loaders."
    ),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """List the weights of a network by the names that a recipe's `where` knows, and the sets that may act there.

    Also which channels go together under `rows`, and which weights stay as they are, with the reason.

    Example: secateur sites my_package.nets:build --shape 3x32x32
    """
    need("sites", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur.api.sites import sites as listed

    if model.endswith((".onnx", ".sct")):
        raise UsageError(
            f"{model}: recipes name the layers of PyTorch models; `secateur inspect {model}` lists those of a file"
        )
    found = listed(*_of_path(model, shape, data, data_dir) if ":" in model else _of_recipe(model, data_dir))
    if json_:
        print_json(found)
    else:
        print_shown(found)


def _of_recipe(path: str, data_dir: Path | None) -> tuple[nn.Module, Any]:
    from secateur.api.asked import model_and_inputs
    from secateur.recipe import Recipe

    return model_and_inputs(Recipe.from_file(path), data_dir)


def _of_path(path: str, shape: list[str], data: str | None, data_dir: Path | None) -> tuple[nn.Module, Any]:
    import torch

    from secateur import zoo
    from secateur.api.asked import model_and_inputs
    from secateur.export.rebuild import load_model
    from secateur.recipe import Recipe

    name = path.removeprefix("secateur.zoo:")
    if data is not None and not shape:
        return model_and_inputs(Recipe.from_dict({"model": path, "data": data}), data_dir)
    model = load_model(Recipe.from_dict({"model": path}))
    if not shape and name in zoo.MODELS:
        return model, torch.zeros(_BATCH, *zoo.MODELS[name].input_shape)
    if not shape:
        raise UsageError(
            f"sites {path}: needs inputs to trace it with: --shape 3x32x32 (once per input), or --data NAME"
        )
    return model, tuple(map(_zeros, shape))


def _zeros(shape: str) -> Any:
    import torch

    found = re.fullmatch(r"(\d+(?:[x,]\d+)*)(?::(\w+))?", shape)
    dtype = getattr(torch, found[2] or "float32", None) if found else None
    if found is None or not isinstance(dtype, torch.dtype):
        raise UsageError(f"--shape {quoted(shape)}: give the sizes of one example, as 3x32x32, or 128:int64")
    return torch.zeros(_BATCH, *map(int, re.split("[x,]", found[1])), dtype=dtype)
