"""`secateur compress RECIPE -o DIR`: the main job."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files
from secateur.cli._extras import need
from secateur.cli._output import print_json
from secateur.report import progress


def command(
    recipe: Path = typer.Argument(..., help="YAML recipe: model, data, budget, constraints, solver."),
    out: Path = typer.Option(..., "-o", "--out", help="Folder for the run's files; made when missing."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the folder's last checkpoint."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="A.B=C",
        help="Override a recipe key: budget.nbytes=6KB, dynamic_batch=false; may be repeated.",
    ),
    seed: int | None = typer.Option(None, "--seed", min=0, help="Overrides the recipe's seed."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    keep_checkpoint: bool = typer.Option(False, "--keep-checkpoint", help="Leave DIR/checkpoint/ at the end."),
    json_: bool = typer.Option(False, "--json", help="Print report.json on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Compress a network under a budget and write model.onnx, model.sct and the report.

    Example: secateur compress recipe.yaml -o runs/lenet5 --set budget.nbytes=6KB --seed 1
    """
    need("compress", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur import api
    from secateur.api.compression import baselines_note
    from secateur.export.written import DENSE
    from secateur.proof.verify import FILES
    from secateur.recipe import Recipe

    overrides = [*set_, *([f"seed={seed}"] if seed is not None else [])]
    checked = Recipe.from_file(recipe, overrides)
    weights = None if checked.weights is None else Path(checked.weights)
    for name in (*FILES, DENSE):
        _files.check_apart(out / name, recipe, weights)
    with progress.shown(False if quiet else None, baselines_note(checked), "lines") as on_progress:
        result = api.run(
            checked, out, resume=resume, on_progress=on_progress, data_dir=data_dir, keep_checkpoint=keep_checkpoint
        )
    if json_:
        print_json(result.report)
        return
    from secateur.report import tables

    tables.print_summary(result.report)
    page = out / "report.html"
    typer.echo(f"\nreport: {page.resolve()}" if page.exists() else f"\nfiles: {out.resolve()}")
