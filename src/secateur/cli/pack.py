"""`secateur pack A.onnx -o B.sct`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._output import size
from secateur.errors import UsageError
from secateur.shell import saving


def command(
    file: Path = typer.Argument(..., help="An .onnx file."),
    out: Path = typer.Option(..., "-o", "--out", help="The .sct file to write."),
    exact: bool = typer.Option(False, "--exact", help="Keep doc strings, metadata and value_info too."),
    level: list[Path] | None = typer.Option(
        None, "--level", help="The next tighter level: the same graph, fewer values."
    ),
) -> None:
    """Pack an ONNX model into a .sct file: the same bits, as small as its zeros and few values allow.

    Example: secateur pack pruned.onnx -o pruned.sct
    With levels to choose from at run time: secateur pack loose.onnx --level tight.onnx -o net.sct
    """
    from secateur import formats

    tighter = level or []
    if exact and tighter:
        raise UsageError("--exact and --level: a file of several levels keeps no doc strings; leave one of them out")
    _files.check_output(out, file, *tighter)
    model = _files.read(file, "an .onnx file")
    others = [_files.read(path, "an .onnx file") for path in tighter]
    with _foreign.model(file):
        packed = formats.pack_levels([model, *others]) if others else formats.pack(model, exact=exact)
    saving.write_bytes(out, packed)
    said = f"{file}: {size(len(model))} -> {out}: {size(len(packed))} ({len(model) / len(packed):.1f}x smaller)"
    typer.echo(said, err=not _files.is_apart(out))
