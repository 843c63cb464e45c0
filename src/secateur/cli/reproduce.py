"""`secateur reproduce NAME`: a published headline result, rerun."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json
from secateur.errors import UsageError
from secateur.report import progress


def command(
    name: str | None = typer.Argument(None, help="Which result (see --list), or the path of a study file (.yaml)."),
    list_: bool = typer.Option(False, "--list", help="List the results that can be reproduced."),
    task: str | None = typer.Option(None, "--task", help="Which task, of a result that has several."),
    cells: str | None = typer.Option(
        None, "--cells", help="Only cells whose name matches, as 'gru' or 'control,bits=2*', and what they start from."
    ),
    seed: int | None = typer.Option(None, "--seed", min=0, help="One seed only; default: all of the result's seeds."),
    out: Path | None = typer.Option(None, "-o", "--out", help="Folder; default runs/NAME."),
    resume: bool = typer.Option(False, "--resume", help="Keep the finished cells of earlier runs in that folder."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Rerun a headline result with its baselines and controls, and print the table with mean and spread.

    A result that makes a claim ends in a verdict: confirmed, smaller or refuted, beside what had been expected. Cells
    are kept one by one: --resume takes up what is finished, and calls for different cells may run side by side.

    Example: secateur reproduce narrow-control --cells 'control,bits=2*' --seed 0 -o runs/control --resume
    """
    need("reproduce", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur import reproduce

    if list_:
        found = reproduce.names()
        if json_:
            print_json(found)
        else:
            for key, about in found.items():
                typer.echo(f"{key}: {about}")
        return
    if name is None:
        raise UsageError(f"reproduce: needs a NAME, one of {', '.join(reproduce.names())}; --list tells what they are")
    with progress.shown(otherwise="lines") as on_progress:
        record = reproduce.run(
            name,
            task=task,
            cells=cells,
            seed=seed,
            out=out or Path("runs") / Path(name).stem,
            resume=resume,
            on_progress=on_progress,
            data_dir=data_dir,
        )
    if json_:
        print_json(record)
    else:
        typer.echo(reproduce.table(record))
