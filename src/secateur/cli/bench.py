"""`secateur bench FILE`: interleaved timing against other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json, print_table
from secateur.errors import UsageError


def command(
    file: Path = typer.Argument(..., help="An .onnx or .sct file, or the folder of a run (its test inputs then)."),
    against: str | None = typer.Option(
        None, "--against", help="Peers, comma-separated: onnxruntime, openvino, torch (for a run). Default: all."
    ),
    dense: Path | None = typer.Option(None, "--dense", help="The dense model, timed beside on the same inputs."),
    threads: int = typer.Option(1, "--threads", min=1),
    batch: int = typer.Option(1, "--batch", min=1),
    seconds: float = typer.Option(3.0, "--seconds", min=0.1, help="Time per runtime and model."),
    input_: Path | None = typer.Option(None, "--input", help=".npy with real inputs (first axis = examples)."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where a run's data set is (or SECATEUR_DATA)."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Time a model in the engine and in other runtimes, interleaved and warm; results are compared in the same run.

    Example: secateur bench model.sct --dense dense.onnx --against onnxruntime,openvino; secateur bench runs/lenet5
    """
    import numpy as np

    from secateur import engine

    if against is None:
        against = "onnxruntime,openvino,torch" if file.is_dir() else "onnxruntime,openvino"
    peers = tuple(p.strip() for p in against.split(",") if p.strip())
    unknown = sorted(set(peers) - {"onnxruntime", "openvino", "torch"})
    if unknown:
        raise UsageError(f"--against: {', '.join(unknown)} unknown; known: onnxruntime, openvino, torch")
    inputs = None
    if input_ is not None:
        try:
            inputs = np.load(input_, allow_pickle=False)
        except (ValueError, OSError, EOFError) as e:
            raise UsageError(f"--input {input_}: not a readable .npy file ({e})") from None
    common: dict[str, Any] = {"threads": threads, "batch": batch, "inputs": inputs, "dense": dense, "seconds": seconds}
    if file.is_dir():
        need("bench", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
        from secateur import timing

        result = timing.bench_run(file, peers, data_dir=data_dir, **common)
    else:
        result = engine.bench(file, against=peers, **common)
    if json_:
        print_json(result)
        return
    print_bench(result)


def print_bench(result: dict[str, object]) -> None:
    """The table and the notes of a bench record."""
    from secateur.engine.bench import rows

    columns, body, footer = rows(result)
    print_table(str(result.get("title", "bench")), columns, body, footer)
