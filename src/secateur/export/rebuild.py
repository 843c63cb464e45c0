"""Networks from a run's folder and from a recipe: the compressed one, the dense one. No code that a file names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secateur import graph
from secateur.errors import FormatError, UnsupportedError, UsageError
from secateur.export.stored import initializers
from secateur.export.written import DENSE
from secateur.graph.copying import copied
from secateur.graph.unwrapping import plain
from secateur.shell.importing import ZOO, called, imported, with_arguments
from secateur.training import seeds

if TYPE_CHECKING:
    from torch import nn

    from secateur.recipe import Recipe

SURGERY = 1  # schema of surgery.json


def surgery_json(surgery: Sequence[dict[str, Any]], model: str | None) -> dict[str, Any]:
    """What `surgery.json` holds."""
    return {"schema": SURGERY, "model": model, "cuts": list(surgery)}


def rebuild(folder: Path, model: nn.Module | None = None, trust: bool = False) -> nn.Module:
    """The compressed module from a run's folder; the caller's `model` is copied, not changed.

    Args:
        trust: build whatever model the folder names; False builds models of `secateur.zoo` only.
    Raises:
        UsageError: a file is missing, or a model is needed and none is given.
        FormatError: a file is damaged or does not fit the model.
    """
    for name in ("surgery.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder}: {name} is missing; give the folder of a finished run")
    facts = _json(folder / "surgery.json")
    if model is None:
        path = facts.get("model")
        if not isinstance(path, str):
            raise UsageError(
                f"{folder}: the run was made from a model object; pass model=, a fresh instance of the same class"
            )
        if not trust:
            check_ours(folder, model=path)
        model = build_model(path)
    model = plain(model)[0]  # as the run began
    for cut in surgery_of(folder):
        model = graph.apply_surgery(model, cut)
    return _loaded(model, folder / "model.safetensors")


def at_level(module: nn.Module, onnx: bytes) -> nn.Module:
    """A copy of the loosest net with the values of a tighter level, as its file holds them.

    Statistics of a batch-norm are 0 and 1 in a file, its scale and shift hold them (`norms.py`); the copy has them so.

    Raises:
        UnsupportedError: the file holds some of the weights in another form (gates of recurrent cells).
    """
    values, own = initializers(onnx), copied(module)
    state = own.state_dict()
    floats = {k for k, v in state.items() if v.is_floating_point()}
    missing = sorted(k for k in floats if k not in values or values[k].shape != tuple(state[k].shape))
    if missing:
        raise UnsupportedError(f"{missing[0]}: the file of a level holds it in another form, not under its own name")
    own.load_state_dict({**state, **{k: torch.from_numpy(np.array(values[k])) for k in floats}})
    return own.eval()


def surgery_of(folder: Path) -> list[Mapping[str, Any]]:
    """The cuts that a run's folder records, in order. FormatError: damaged."""
    cuts = _json(folder / "surgery.json")["cuts"]
    assert isinstance(cuts, list)
    return cuts


def dense_net(folder: Path, model: nn.Module, trained: bool) -> nn.Module | None:
    """The dense net of a run: `model` (copied) as it is, or with the weights of the folder where the run trained it.

    Args:
        trained: did the run train it? A file that an earlier run left in the folder is not looked at otherwise.
    Returns:
        None where the run's file of it is missing.
    """
    model = plain(model)[0]
    if not trained:
        return model.eval()
    return _loaded(model, folder / DENSE) if (folder / DENSE).is_file() else None


def _loaded(model: nn.Module, path: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        model.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as e:
        raise FormatError(f"{path}: does not fit the model: {e}") from None
    return model.eval()


def check_ours(folder: Path, model: str | None = None, data: str | None = None) -> None:
    """Refuse what a file in `folder` names as model or data and is code of somebody else's: it would be run.

    Raises:
        UsageError: `model` is not in `secateur.zoo.MODELS`, `data` is an import path.
    """
    from secateur import zoo
    from secateur.data import is_path

    ours = {f"{ZOO}{name}" for name in zoo.MODELS}
    if model is not None and with_arguments(model, f"{folder}: model")[0] not in ours:
        raise UsageError(
            f"{folder}: the model of this run, {model[:80]!r}, is code outside secateur; where you trust the folder, "
            "say so (from Python trust=True, in a command --trust), or pass model= to secateur.load"
        )
    if data is not None and is_path(data):
        raise UsageError(
            f"{folder}: the data of this run, {data[:80]!r}, is code outside secateur; where you trust the folder, "
            "say so (from Python trust=True, in a command --trust)"
        )


def build_model(path: str) -> nn.Module:
    """The module that `package.module:attribute` names: an instance, or a callable that makes one.

    Arguments of the callable may follow, by name: `secateur.zoo:resnet20(width=0.5)`.

    Raises:
        UsageError: nothing there, or no module came out.
    """
    from torch import nn

    place, arguments = with_arguments(path, "model")
    found = imported(place, "model", "secateur.zoo:lenet5")
    ready = isinstance(found, nn.Module) and not arguments
    made = found if ready or not callable(found) else called(found, path, "model", arguments)
    if not isinstance(made, nn.Module):
        raise UsageError(f"model {path!r}: gave a {type(made).__name__}; an nn.Module or a function that makes one")
    return made


def _json(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as e:
        raise FormatError(f"{path}: damaged ({e})") from None
    if not isinstance(facts, dict) or facts.get("schema") != SURGERY or not isinstance(facts.get("cuts"), list):
        raise FormatError(f"{path}: not a surgery record of schema {SURGERY}")
    return facts


def load_model(recipe: Recipe) -> nn.Module:
    """The recipe's model with its weights, in eval mode."""
    if recipe.model is None:
        raise UsageError("recipe: `model` is missing; give package.module:attribute, as secateur.zoo:lenet5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        model = build_model(recipe.model)
    if recipe.weights is not None:
        from secateur import zoo

        zoo.load_weights(model, recipe.weights)
    return model.eval()
