"""`secateur pack A.onnx -o B.sct`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._output import size
from secateur.shell import saving


def command(
    file: Path = typer.Argument(..., help="An .onnx file."),
    out: Path = typer.Option(..., "-o", "--out", help="The .sct file to write."),
    exact: bool = typer.Option(False, "--exact", help="Keep doc strings, metadata and value_info too."),
) -> None:
    """Pack an ONNX model into a .sct file: the same bits, as small as its zeros and few values allow.

    Example: secateur pack pruned.onnx -o pruned.sct
    """
    from secateur import formats

    _files.check_output(out, file)
    model = _files.read(file, "an .onnx file")
    with _foreign.model(file):
        packed = formats.pack(model, exact=exact)
    saving.write_bytes(out, packed)
    said = f"{file}: {size(len(model))} -> {out}: {size(len(packed))} ({len(model) / len(packed):.1f}x smaller)"
    typer.echo(said, err=not _files.is_apart(out))
