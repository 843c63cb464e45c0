"""`secateur verify DIR`: recompute what the run claims from its files."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json, print_shown
from secateur.errors import CheckError


def command(
    folder: Path = typer.Argument(..., metavar="DIR", help="A finished run's folder."),
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where the data sets are (or SECATEUR_DATA)."),
    trust: bool = typer.Option(False, "--trust", help="Run the model and data code that the folder names, if any."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
) -> None:
    """Recompute outputs, metric, bytes, nonzeros and budget from the written files; exit 1 on any mismatch.

    Example: secateur verify runs/lenet5
    """
    need("verify", "compress", "torch", "onnx", "safetensors", "pydantic", "yaml")
    from secateur.proof import verify

    result = verify.verify(folder, data_dir, trust=trust)
    if json_:
        print_json(result)
    else:
        print_shown(result)
    failed = [c["name"] for c in result["checks"] if c["passed"] is False]
    if failed:
        raise CheckError(f"{folder}: {len(failed)} of {len(result['checks'])} checks failed: {', '.join(failed)}")
