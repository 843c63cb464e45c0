"""`secateur plan RECIPE`: what the budget would buy."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json, print_table, size


def command(
    recipe: Path = typer.Argument(..., help="YAML recipe."),
    set_: list[str] = typer.Option([], "--set", metavar="A.B=C", help="Override a recipe key; may be repeated."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Before training: every layer's level, predicted bytes, nonzeros and MACs, and how sensitive it is.

    Example: secateur plan recipe.yaml --set budget.nbytes=6KB
    """
    need("plan", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur import api
    from secateur.recipe import Recipe

    found = api.plan(Recipe.from_file(recipe, set_), data_dir=data_dir)
    if json_:
        print_json(found)
        return
    columns = ["layer", "shape", "constraint", "level", "density", "bits", "bytes", "MACs", "one-shot metric", "drop"]
    rows = [[layer.get(key, "-") for key in _KEYS] for layer in found["layers"]]
    footer = f"predicted {size(found['nbytes'])} +- {found['nbytes_error']:.0%}, dense {size(found['dense_nbytes'])}"
    print_table(str(recipe), columns, [[_text(v) for v in row] for row in rows], footer)
    for row in found["budget"]:
        typer.echo(f"budget {row['name']}: asked {row['asked']:g}, predicted {row['predicted']:g}")
    for note in found["notes"]:
        typer.echo(note)


_KEYS = (
    "name",
    "shape",
    "constraint",
    "level",
    "density",
    "bits",
    "nbytes",
    "macs",
    "one_shot_metric",
    "one_shot_drop",
)


def _text(value: object) -> object:
    if isinstance(value, list | tuple):
        return "x".join(str(v) for v in value)
    return "-" if value is None else value
