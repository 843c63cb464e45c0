"""`secateur sweep RECIPE --over KEY=a,b,c -o DIR`: runs along a frontier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json, print_table
from secateur.errors import UsageError
from secateur.report import progress

if TYPE_CHECKING:
    from secateur.training.loop import Report


def command(
    recipe: Path = typer.Argument(..., help="YAML recipe: model, data, budget, constraints, solver."),
    over: str = typer.Option(..., "--over", metavar="KEY=A,B,C", help="The key to vary and its values."),
    out: Path = typer.Option(..., "-o", "--out", help="Folder for the table, the page and a folder for each point."),
    resume: bool = typer.Option(False, "--resume", help="Keep the finished points and go on."),
    cold: bool = typer.Option(False, "--cold", help="Start every point from the dense net, not from the one before."),
    set_: list[str] = typer.Option([], "--set", metavar="A.B=C", help="Override a recipe key; may be repeated."),
    seed: int | None = typer.Option(None, "--seed", min=0, help="Overrides the recipe's seed."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="Print sweep.json on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Compress under several budgets, each run starting from the answer before; table, plot and CSV.

    Limits are taken from the loosest to the tightest; the dense net is trained once. Exit code 1 when a point missed
    its limits.

    Example: secateur sweep recipe.yaml --over budget.nbytes=20KB,10KB,6KB -o runs/frontier
    """
    need("sweep", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from contextlib import ExitStack

    from secateur.api.sweep import sweep
    from secateur.recipe import Recipe
    from secateur.report import frontier

    key, eq, values = over.partition("=")
    if not eq or not key or not values:
        raise UsageError(f"--over {over!r}: give a key and its values, as --over budget.nbytes=20KB,10KB")
    overrides = [*set_, *([f"seed={seed}"] if seed is not None else [])]
    checked = Recipe.from_file(recipe, overrides)
    with ExitStack() as bars:

        def shown(point: str) -> Report | None:
            bars.close()
            return bars.enter_context(progress.shown(False if quiet else None, point, "lines"))

        found = sweep(
            *(checked, key.strip(), [v.strip() for v in values.split(",")], out),
            resume=resume,
            cold=cold,
            data_dir=data_dir,
            on_progress=shown,
        )
    if json_:
        print_json({"schema": 1, "key": found.key, "points": list(found.rows)})
    else:
        print_table(f"sweep over {found.key}", (found.key, *frontier.HEADS), frontier.lines(found.rows))
        page = out / "sweep.html"
        typer.echo(f"\ntable: {(out / 'sweep.csv').resolve()}{f'   page: {page.resolve()}' if page.exists() else ''}")
    if not found.met:
        raise typer.Exit(1)
