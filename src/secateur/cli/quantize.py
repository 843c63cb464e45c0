"""`secateur quantize A.onnx --calib x.npy -o B.onnx`."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli import _files, _foreign
from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.report import progress


def command(
    file: Path = typer.Argument(..., help="A float32 .onnx or .sct file, any exporter's."),
    calib: Path = typer.Option(
        ..., "--calib", help="Examples as the network gets them: x.npy (one input) or x.npz (arrays by input name)."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="The int8 file to write: .onnx, or .sct for the packed form."),
    keep: list[str] = typer.Option(
        [], "--keep", metavar="PATTERN", help="Layers that stay float32, by node or weight, as 'fc*'; may be repeated."
    ),
    observer: str = typer.Option(
        "minmax", "--observer", help="How ranges are found: minmax, moving, percentile, mse, entropy."
    ),
    percentile: float = typer.Option(99.99, "--percentile", help="For that observer."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="Default: all CPUs the process may use."),
    bench: bool = typer.Option(False, "--bench", help="Time both forms in the engine."),
    seconds: float = typer.Option(1.0, "--seconds", min=0.01, help="Time per form, with --bench."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Make an int8 network of a float32 file and some examples: no torch, no training.

    Convolutions, linear layers and what lies between them run in integers, in the engine as in any runtime that takes
    QuantizeLinear and DequantizeLinear. The table says which layers do not, and why, and how far the outputs moved.

    Example: secateur quantize model.onnx --calib x.npy -o int8.onnx --keep head
    """
    need("quantize", "compress", "onnx")
    from secateur.post_training import quantize

    _files.check_output(out, file, calib)
    with _foreign.model(file), progress.shown(False if quiet else None, "", "lines") as on_progress:
        found = quantize(
            file,
            calib,
            keep=keep,
            observer=observer,
            percentile=percentile,
            threads=threads,
            bench_seconds=seconds if bench else None,
            on_progress=on_progress,
        )
    found.save(out)
    if json_:
        print_json(found.report)
    elif _files.is_apart(out):
        print_shown(found.report)
        typer.echo(f"written: {out}")
