"""`secateur latency NET`: what the layers of a net take on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.report import progress
from secateur.types import Progress


def command(
    net: Path = typer.Argument(..., help="An .onnx or .sct file, or a recipe (its model, the patterns of its sets)."),
    output: Path | None = typer.Option(None, "-o", "--output", help="Write the table here, as JSON."),
    again: bool = typer.Option(False, "--again", help="Time a file anew, whatever this machine remembers of it."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where a recipe's data set is (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Time the layers of a net in the engine at their own shapes, over densities, patterns of zeros and bits.

    The table is what a budget in milliseconds plans with. It is remembered for this machine; written with -o, a recipe
    on another machine plans for this one with `latency: {table: table.json}`.

    Example: secateur latency model.onnx -o table.json
    """
    need("latency", "compress", "onnx")
    from secateur.api import latency
    from secateur.engine.latency import write

    if output is not None:
        _files.check_output(output, net)
    begin = time.monotonic()
    with progress.shown(False if quiet else None, "", "lines") as report:

        def told(done: int, total: int) -> None:
            if report is not None:
                report(Progress("latency", done, total, time.monotonic() - begin))

        if net.suffix in (".yaml", ".yml"):
            need("latency", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
            found = latency.of_recipe(net, told, data_dir)
        else:
            with _foreign.model(net):
                found = latency.of_file(net, told, again)
    if output is not None:
        write(output, found)
    if json_:
        print_json(found.json())
    elif output is None:
        print_shown(latency.shown(found))
    else:
        typer.echo(f"{output}: {len(found.rows)} rows of {len(found.layers)} layers, {found.cpu}, {found.isa}")
