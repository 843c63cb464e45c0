"""`secateur run FILE --input x.npy --output y.npz`: inference in the engine."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from secateur.cli import _files, _foreign
from secateur.errors import FormatError, UsageError
from secateur.shell import saving

if TYPE_CHECKING:
    from numpy.typing import NDArray


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file."),
    input_: Path = typer.Option(..., "--input", help="x.npy (one input) or x.npz (arrays by input name)."),
    output: Path = typer.Option(..., "--output", help="y.npz, one array per output name."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="Default: all CPUs the process may use."),
    tune: str | None = typer.Option(None, "--tune", help="Time the best kernels first: off, fast, full."),
    level: int = typer.Option(0, "--level", min=0, help="Of a .sct file that holds several; 0 is the loosest."),
) -> None:
    """Run a model on arrays from a file and write its outputs.

    An output that is a sequence is written element by element (name.0, name.1, ...); maps with the same keys, as
    classifiers give them, as their values [row, key] and, under name.keys, the keys.

    Example: secateur run model.sct --input x.npy --output y.npz
    """
    import numpy as np

    from secateur.engine import InferenceSession

    _files.check_output(output, file, input_)
    with _foreign.model(file):
        session = InferenceSession(file, threads=threads, tune=tune, level=level)
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
    outputs = zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True)
    results = {key: array for name, value in outputs for key, array in _arrays(name, value)}
    # Not np.savez: an output may be called `file`, which is the name of its first parameter.
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        for key, value in results.items():
            with z.open(f"{key}.npy", "w") as f:
                np.lib.format.write_array(f, value, allow_pickle=False)
    saving.write_bytes(output, archive.getvalue())
    for key, value in results.items():
        typer.echo(f"{key}: {value.dtype} {list(value.shape)} -> {output}", err=not _files.is_apart(output))


def _arrays(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """What a model gives as arrays that a file can hold without pickling."""
    import numpy as np

    if isinstance(value, list) and value and all(isinstance(v, dict) and v.keys() == value[0].keys() for v in value):
        yield name, np.array([list(v.values()) for v in value])
        yield f"{name}.keys", np.array(list(value[0]))
    elif isinstance(value, dict):
        yield from _arrays(name, [value])
    elif isinstance(value, list):
        for i, element in enumerate(value):
            yield from _arrays(f"{name}.{i}", element)
    elif value is not None:
        array = np.asarray(value)
        yield name, array.astype(str) if array.dtype == object else array
