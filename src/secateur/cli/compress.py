"""`secateur compress RECIPE -o DIR`: the main job; `secateur compress A.onnx --calib x.npy -o DIR` without training."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.errors import UsageError
from secateur.report import progress

_FOR_RECIPES = "is for recipes; a file takes --calib, --budget, --int8 and --keep"
_FOR_FILES = "is for an .onnx or .sct file; a recipe says it with its own keys"


def command(
    recipe: Path = typer.Argument(
        ...,
        help="YAML recipe: model, data, budget, constraints, solver; or a float32 .onnx or .sct file.",
    ),
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
    calib: Path | None = typer.Option(None, "--calib", help="For a file: examples, x.npy or x.npz (by input name)."),
    budget: str | None = typer.Option(
        None,
        "--budget",
        metavar="KIND=VALUE",
        help="For a file: nbytes=20KB, nnz=5K or macs=1M; else half its weights.",
    ),
    int8: bool = typer.Option(False, "--int8", help="For a file: its layers run in 8-bit integers too."),
    keep: list[str] = typer.Option(
        [], "--keep", metavar="PATTERN", help="For a file: layers that stay as they are; may be repeated."
    ),
    json_: bool = typer.Option(False, "--json", help="Print report.json on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Compress a network under a budget and write model.onnx, model.sct and the report.

    A file is pruned at once with what its layers read on the examples, without torch and without training; only
    model.onnx, model.sct and report.json are written then.

    Example: secateur compress recipe.yaml -o runs/lenet5 --set budget.nbytes=6KB --seed 1
    """
    is_file = recipe.suffix in (".onnx", ".sct")
    if is_file:
        given = {"--resume": resume, "--set": set_, "--seed": seed is not None, "--data-dir": data_dir}
        given["--keep-checkpoint"] = keep_checkpoint
    else:
        given = {"--calib": calib, "--budget": budget, "--int8": int8, "--keep": keep}
    if wrong := [option for option, value in given.items() if value]:
        raise UsageError(f"{recipe}: {wrong[0]} {_FOR_RECIPES if is_file else _FOR_FILES}")
    if is_file:
        _without_training(recipe, out, calib, budget, int8, keep, json_, quiet)
        return
    need("compress", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur import api
    from secateur.api.compression import baselines_note
    from secateur.recipe import Recipe

    checked = Recipe.from_file(recipe, [*set_, *([f"seed={seed}"] if seed is not None else [])])
    _check_apart(out, recipe, None if checked.weights is None else Path(checked.weights))
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


def _check_apart(out: Path, recipe: Path, weights: Path | None) -> None:
    from secateur.export.written import DENSE
    from secateur.proof.verify import FILES

    for name in (*FILES, DENSE):
        _files.check_apart(out / name, recipe, weights)


def _without_training(
    file: Path,
    out: Path,
    calib: Path | None,
    budget: str | None,
    int8: bool,
    keep: list[str],
    json_: bool,
    quiet: bool,
) -> None:
    """One-shot pruning of a file."""
    need("compress", "compress", "onnx")
    from secateur.post_training import pruning

    if calib is None:
        raise UsageError(f"{file}: --calib is missing; give examples as the network gets them, an .npy or .npz file")
    for name in pruning.FILES:
        _files.check_apart(out / name, file, calib)
    kind, _, value = (budget or "").partition("=")
    with _foreign.model(file), progress.shown(False if quiet else None, "", "lines") as on_progress:
        found = pruning.prune(
            file, calib, {kind: value} if budget else None, int8=int8, keep=keep, on_progress=on_progress
        )
    found.save(out)
    if json_:
        print_json(found.report)
    else:
        print_shown(found.report)
        typer.echo(f"files: {out.resolve()}")
