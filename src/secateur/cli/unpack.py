"""`secateur unpack B.sct -o A.onnx`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._output import size
from secateur.shell import saving


def command(
    file: Path = typer.Argument(..., help="A .sct file."),
    out: Path = typer.Option(..., "-o", "--out", help="The .onnx file to write."),
    level: int = typer.Option(0, "--level", min=0, help="Of a file that holds several; 0 is the loosest."),
) -> None:
    """Unpack a .sct file into the ONNX model that it holds, bit for bit.

    Example: secateur unpack pruned.sct -o pruned.onnx
    """
    from secateur import formats

    _files.check_output(out, file)
    packed = _files.read(file, "a .sct file")
    with _foreign.model(file):
        model = formats.unpack(packed, level=level)
    saving.write_bytes(out, model)
    typer.echo(f"{file}: {size(len(packed))} -> {out}: {size(len(model))}", err=not _files.is_apart(out))
