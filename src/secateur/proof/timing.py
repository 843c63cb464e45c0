"""`secateur bench DIR`: the nets of a finished run, timed on the run's own test inputs, torch included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur import data, engine
from secateur.errors import SecateurError, UsageError
from secateur.export import written
from secateur.export.rebuild import check_ours, dense_net, load_model, rebuild
from secateur.proof.judge import real_inputs, whole_split
from secateur.recipe import Recipe
from secateur.run.net import example_of

if TYPE_CHECKING:
    from torch import nn

    from secateur.data.spec import Splits
    from secateur.graph import Example

_EXAMPLES = 64  # calls' worth of inputs in rotation


def bench_run(
    folder: str | Path,
    against: Sequence[str],
    *,
    batch: int = 1,
    inputs: Any = None,
    dense: str | Path | None = None,
    data_dir: str | Path | None = None,
    trust: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """`engine.bench` of a run's folder.

    The compressed network is rebuilt for torch. The dense one is the recipe's model with the `weights` that the recipe
    names or the run trained; where neither is there, with fresh ones, which serve for speed.

    Args:
        inputs: examples as for `engine.bench`; None takes the test split of the recipe's data, and random numbers,
            said in `notes`, where that cannot be had.
        how: `threads`, `seconds`, `int8`, `tune`, as of `engine.bench`.
        trust: run code outside secateur that the folder names as model or data; else it is done without, said in
            `notes`.
    Returns:
        The record of `engine.bench`, and `notes`: what could not be had, and why.
    Raises:
        UsageError: not the folder of a finished run. FormatError: a damaged file in it.
    """
    folder, notes = Path(folder), list[str]()
    recipe = _recipe(folder)
    module = None  # for torch
    try:
        module = rebuild(folder, None, trust)
    except UsageError as e:
        notes.append(f"torch: {e}")
    splits = _splits(folder, recipe, data_dir, trust, notes)
    dense_module, example = _dense_net(folder, recipe, splits, dense is not None, trust, notes)
    dense_file: str | Path | bytes | None = dense
    if dense is None and dense_module is not None and example is not None:
        dense_file = written.exported_bytes(dense_module, example)
    if example is not None and example.batched:
        batch = written.fixed_batch((folder / "model.onnx").read_bytes()) or batch
    if inputs is None and splits is not None:
        names = [i.name for i in engine.InferenceSession(folder / "model.sct").get_inputs()]
        inputs = _inputs(names, splits, example, _EXAMPLES * batch)
    found = engine.bench(
        folder / "model.sct",
        against=against,
        batch=batch,
        inputs=inputs,
        dense=dense_file,
        module=module,
        dense_module=dense_module if dense is None else None,
        whole=example is not None and not example.batched,
        **how,
    )
    return {**found, "notes": notes}


def _recipe(folder: Path) -> Recipe:
    for name in ("model.sct", "model.onnx", "recipe.yaml"):
        if not (folder / name).is_file():
            raise UsageError(
                f"{folder}: {name} is missing; give the folder of a finished run, or an .onnx or .sct file"
            )
    return Recipe.of_run(folder / "recipe.yaml")


def _splits(folder: Path, recipe: Recipe, data_dir: str | Path | None, trust: bool, notes: list[str]) -> Any:
    """The recipe's data; None, said in `notes`, where they cannot be had."""
    try:
        if not trust:
            check_ours(folder, data=recipe.data)
        return None if recipe.data is None else data.load(recipe.data, data_dir)
    except SecateurError as e:
        notes.append(f"random inputs, because the recipe's data cannot be had: {e}")
        return None


def _dense_net(
    folder: Path, recipe: Recipe, splits: Any, given: bool, trust: bool, notes: list[str]
) -> tuple[nn.Module | None, Example | None]:
    """The dense net and what it is traced on, as far as they can be had; `given`: a file of it is timed instead."""
    module: nn.Module | None = None
    if splits is None:
        if not given:
            notes.append("dense net: it is made from the recipe's data, which cannot be had; --dense takes a file")
        return None, None
    try:
        if not trust:
            check_ours(folder, model=recipe.model)
        module, said = _dense(folder, recipe)
        example = example_of(module, splits.train, recipe)
    except SecateurError as e:
        notes.append(f"dense net: {e}")
        return module, None
    notes += [] if given else said
    return module, example


def _dense(folder: Path, recipe: Recipe) -> tuple[nn.Module, list[str]]:
    """The dense net, and what is to be said of it."""
    fresh = load_model(recipe)
    kept = dense_net(folder, fresh, recipe.dense is not None)
    if kept is not None and (recipe.dense is not None or recipe.weights is not None):
        return kept, []
    return fresh, ["dense net: the recipe's model with fresh weights (its own are in no file): speed only"]


def _inputs(names: Sequence[str], splits: Splits, example: Example | None, at_most: int) -> dict[str, Any]:
    if example is not None:
        return real_inputs(names, splits, example, at_most)
    return {k: a[:at_most] for k, a in zip(names, whole_split(splits, "test")[0], strict=True)}
