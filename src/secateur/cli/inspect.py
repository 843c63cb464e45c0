"""`secateur inspect FILE`: what is in a model file and what the engine would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from secateur.cli import _foreign
from secateur.cli._output import print_json, print_table, size


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file, any exporter's."),
    batch: int = typer.Option(1, "--batch", min=1, help="Size of free axes."),
    time: bool = typer.Option(False, "--time", help="Measure every layer, on one thread."),
    tune: str | None = typer.Option(None, "--tune", help="Time the best kernels first: off, fast, full."),
    level: int = typer.Option(0, "--level", min=0, help="Of a file that holds several; 0 is the loosest."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Show every layer: what was found in it, its cost and bytes; the engine's kernel, its time and why.

    Times are predicted by the cost model and, with --time, measured; layers measured at more than twice the prediction
    are marked with an exclamation mark. What only plain loops compute is named so; a quantized layer that is computed
    in float32 says why.

    Example: secateur inspect model.sct --time
    """
    from secateur import engine
    from secateur.engine.coverage import share

    with _foreign.model(file):
        found = engine.inspect(file, batch, time=time, tune=tune, level=level)
    if json_:
        print_json(found)
        return
    if found["levels"]:
        names = ["level", "nonzeros", "density", "bytes in this file", "bytes alone"]
        print_table(f"{file}: levels, each inside the one before", names, [_level(row) for row in found["levels"]])
    layers = found["layers"]
    columns = ["layer", "op", "weight", "density", "bits", "found", "MACs", "bytes", "bound"]
    of = f", level {level} as a file of its own" if level else ""
    print_table(f"{file}: {size(found['nbytes'])}{of}", columns, [_contents(layer) for layer in layers])
    run = [_run(layer) for layer in layers if layer["kernel"]]
    if run:
        title = f"the engine: ISA {found['isa']}, 1 thread, batch {batch}, tune {found['tune']}"
        print_table(title, ["layer", "kernel", "in", "predicted us", "us", "why"], run)
    totals = found["totals"]
    typer.echo(share(found["coverage"]))
    typer.echo("totals: " + ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in totals.items()))


def _level(row: dict[str, Any]) -> list[Any]:
    density = f"{row['nnz'] / max(row['n_weights'], 1):.4f}"
    return [str(row["level"]), row["nnz"], density, row["nbytes"], row["nbytes_alone"]]


def _contents(layer: dict[str, Any]) -> list[Any]:
    density, bound = layer["density"], layer["bound_nbytes"]
    values = [f"{layer['n_values']} values"] if layer["n_values"] and layer["bits"] < 16 else []
    return [
        layer["name"],
        layer["op"],
        "x".join(str(d) for d in layer["shape"] or []) or "-",
        "-" if density is None else f"{density:.4f}",
        layer["bits"] or "-",
        "; ".join(values + [f + " (stored only)" * (f in layer["stored_only"]) for f in layer["structure"]]),
        layer["macs"],
        layer["nbytes"],
        "-" if bound is None else f"{bound:.1f}",
    ]


def _run(layer: dict[str, Any]) -> list[Any]:
    measured = _us(layer["time_us"]) + ("!" if layer["slow"] else "")
    kernel = layer["kernel"] + (" (plain loops)" if layer["plain_loops"] else "")
    return [layer["name"], kernel, layer["arithmetic"] or "-", _us(layer["predicted_us"]), measured, layer["why"]]


def _us(time: float | None) -> str:
    return "-" if time is None else f"{time:.1f}"
