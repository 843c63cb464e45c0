"""`secateur bench FILE`: interleaved timing against other runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from secateur.cli import _files, _foreign
from secateur.cli._extras import need
from secateur.cli._output import print_json, print_table
from secateur.errors import CheckError, MissingExtraError, UsageError
from secateur.limits import quoted
from secateur.shell import saving
from secateur.version import __version__


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file, or the folder of a run (its test inputs then)."),
    against: str | None = typer.Option(
        None, "--against", help="Peers, comma-separated: onnxruntime, openvino, torch (for a run). Default: all."
    ),
    dense: Path | None = typer.Option(None, "--dense", help="The dense model, timed beside on the same inputs."),
    threads: int = typer.Option(1, "--threads", min=1),
    tune: str | None = typer.Option(None, "--tune", help="Time the engine's best kernels first: off, fast, full."),
    batch: int = typer.Option(1, "--batch", min=1),
    seconds: float = typer.Option(3.0, "--seconds", min=0.1, help="Time per runtime and model."),
    input_: Path | None = typer.Option(None, "--input", help=".npy with real inputs (first axis = examples)."),
    int8: bool = typer.Option(True, "--int8/--no-int8", help="Also the dense net in static int8, calibrated here."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where a run's data set is (or SECATEUR_DATA)."),
    trust: bool = typer.Option(False, "--trust", help="Run the model and data code that the folder names, if any."),
    out: Path | None = typer.Option(None, "--out", help="Write the JSON record here, and the plots beside it (.html)."),
    plot: Path | None = typer.Option(None, "--plot", help="Write the interactive plots here: one self-contained file."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Time a model in the engine and in other runtimes, interleaved and warm; exit 1 when their results do not agree.

    Example: secateur bench model.sct --dense dense.onnx --against onnxruntime,openvino; secateur bench runs/lenet5
    """
    from secateur import engine
    from secateur.engine.bench import failed, rows

    peers = _peers(file, against)
    _check_outputs(file, dense, input_, out, plot)
    common: dict[str, Any] = {
        "threads": threads, "batch": batch, "inputs": _inputs(input_), "dense": dense, "seconds": seconds, "int8": int8,
        "tune": tune,
    }  # fmt: skip
    if file.is_dir():
        need("bench", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
        from secateur.proof import timing

        result = timing.bench_run(file, peers, data_dir=data_dir, trust=trust, **common)
    else:
        if dense is not None:
            _foreign.check(dense)
        with _foreign.model(file):
            result = engine.bench(file, against=peers, **common)
    _write(result, out, plot)
    if json_:
        print_json(result)
    else:
        columns, body, footer = rows(result)
        print_table(result["title"], columns, body, footer)
    if wrong := failed(result):
        raise CheckError(f"{file}: results differ, so the timings mean nothing: {'; '.join(wrong)}")


def _peers(file: Path, against: str | None) -> tuple[str, ...]:
    if against is None:
        against = "onnxruntime,openvino,torch" if file.is_dir() else "onnxruntime,openvino"
    peers = tuple(p.strip() for p in against.split(",") if p.strip())
    unknown = sorted(set(peers) - {"onnxruntime", "openvino", "torch"})
    if unknown:
        raise UsageError(f"--against: {quoted(', '.join(unknown))} unknown; known: onnxruntime, openvino, torch")
    return peers


def _inputs(path: Path | None) -> Any:
    import numpy as np

    if path is None:
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise UsageError(f"--input {path}: not a readable .npy file ({e})") from None


def _check_outputs(file: Path, dense: Path | None, input_: Path | None, out: Path | None, plot: Path | None) -> None:
    """Before the work: neither file that is written is read, nor are both the same."""
    from secateur.export.written import DENSE
    from secateur.proof.verify import FILES

    inputs = (file, dense, input_, *(file / name for name in (*FILES, DENSE)))
    page = plot or (out.with_suffix(".html") if out is not None else None)
    for path in (out, page):
        if path is not None:
            _files.check_output(path, *inputs)
    if out is not None and page is not None and out.resolve() == page.resolve():
        raise UsageError(f"--out {out}: is where the plots go; give the record another name, such as {out.stem}.json")


def _write(result: dict[str, Any], out: Path | None, plot: Path | None) -> None:
    """The record and its plots; without plotly only plots that were asked for by name are an error."""
    from secateur.report import timings

    if out is not None:
        saving.write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    try:
        if plot is not None or out is not None:
            timings.write(plot or out.with_suffix(".html"), result, __version__)  # type: ignore[union-attr]
    except MissingExtraError as error:
        if plot is not None:
            raise
        typer.echo(f"no plots: {error}", err=True)
