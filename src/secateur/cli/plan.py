"""`secateur plan RECIPE`: what the budget would buy."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files
from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.errors import UsageError
from secateur.report import progress


def command(
    recipe: Path = typer.Argument(..., help="YAML recipe."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="A.B=C",
        help="Override a recipe key: budget.nbytes=6KB, dynamic_batch=false; may be repeated.",
    ),
    untrained: bool = typer.Option(False, "--untrained", help="Do not train the recipe's dense net first: sizes only."),
    dense: Path | None = typer.Option(
        None, "--dense", help="The trained dense net: a .safetensors file, or the folder of a run that trained it."
    ),
    keep: Path | None = typer.Option(None, "--keep", help="Write the dense net to this .safetensors file."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Before compressing: every layer's level, predicted bytes, nonzeros and MACs, and how sensitive it is.

    A recipe that trains its dense net is planned on the trained net, which takes as long as that training. Limits that
    no training can meet are refused before it.

    Example: secateur plan recipe.yaml --set budget.nbytes=6KB --keep dense.safetensors
    """
    need("plan", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur.api import plan as plans
    from secateur.recipe import Recipe

    if untrained and (dense or keep):
        raise UsageError(f"plan: --untrained and {'--dense' if dense else '--keep'} exclude each other; give one")
    checked = Recipe.from_file(recipe, set_)
    if keep is not None:
        weights = None if checked.weights is None else Path(checked.weights)
        _files.check_output(keep, recipe, dense, weights)
    note = "" if untrained or dense else plans.training_note(checked)
    with progress.shown(False if quiet else None, note, "lines") as report:
        found = plans.of_recipe(checked, data_dir, untrained=untrained, dense=dense, keep=keep, on_progress=report)
    if json_:
        print_json(found)
    else:
        print_shown(found)
