"""`secateur inspect FILE`: what is in a model file and what the engine would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from secateur.cli._output import print_json, print_table, size


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file, any exporter's."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Show every layer: op, shape, density, bits, MACs, bytes beside their bound; the engine's kernel and why.

    Example: secateur inspect model.sct
    """
    from secateur import engine
    from secateur.engine.mixed import share

    found = engine.inspect(file)
    if json_:
        print_json(found)
        return
    rows = [_row(layer) for layer in found["layers"]]
    columns = ["layer", "op", "weight", "density", "values", "MACs", "bytes", "bound", "kernel", "why"]
    print_table(f"{file}: {size(found['nbytes'])}, ISA {found.get('isa', '-')}", columns, rows)
    totals = found["totals"]
    typer.echo(share(found["coverage"]))
    typer.echo("totals: " + ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in totals.items()))


def _row(layer: dict[str, Any]) -> list[Any]:
    shape = "x".join(str(d) for d in layer.get("shape") or []) or "-"
    density = layer.get("density")
    return [
        layer.get("name", ""),
        layer.get("op", ""),
        shape,
        "-" if density is None else f"{density:.4f}",
        layer.get("n_values") or "-",
        layer.get("macs") or 0,
        layer.get("nbytes") or 0,
        "-" if layer.get("bound_nbytes") is None else f"{layer['bound_nbytes']:.1f}",
        layer.get("kernel", ""),
        layer.get("why", ""),
    ]
