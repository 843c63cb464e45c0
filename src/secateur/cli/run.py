"""`secateur run FILE --input x.npy --output y.npz`: inference in the engine."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import typer

from secateur.cli import _files
from secateur.errors import FormatError, UsageError


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file."),
    input_: Path = typer.Option(..., "--input", help="x.npy (one input) or x.npz (arrays by input name)."),
    output: Path = typer.Option(..., "--output", help="y.npz, one array per output name."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="Threads of the engine; default 1."),
    tune: str | None = typer.Option(None, "--tune", help="Time the best kernels first: off, fast, full."),
) -> None:
    """Run a model on arrays from a file and write its outputs.

    Example: secateur run model.sct --input x.npy --output y.npz
    """
    import numpy as np

    from secateur.engine import InferenceSession

    session = InferenceSession(file, threads=threads, tune=tune)
    inputs = session.get_inputs()
    if not input_.exists():
        raise UsageError(f"--input {input_}: no such file; give an .npy or .npz file")
    try:
        loaded = np.load(input_, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if len(inputs) != 1:
                wanted = ", ".join(i.name for i in inputs)
                raise UsageError(f"--input {input_}: one array, but {file} has inputs {wanted}; give an .npz with them")
            feeds = {inputs[0].name: loaded}
        else:
            with loaded:
                feeds = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError) as e:
        raise FormatError(f"--input {input_}: not a readable .npy or .npz file ({e})") from None
    results = session.run(None, feeds)
    names = [o.name for o in session.get_outputs()]
    # Not np.savez: an output may be called `file`, which is the name of its first parameter.
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        for key, value in zip(names, results, strict=True):
            with z.open(f"{key}.npy", "w") as f:
                np.lib.format.write_array(f, value, allow_pickle=False)
    _files.write(output, archive.getvalue())
    for key, value in zip(names, results, strict=True):
        typer.echo(f"{key}: {value.dtype} {list(value.shape)} -> {output}")
