"""Seconds that `secateur plan` takes for a ResNet-50 of 224x224 pixels under a budget in milliseconds, one thread.

    python benchmarks/speed/planning.py --out benchmarks/results/speed-plan.json

`secateur latency` makes the table of the machine's kernels first where none is kept (minutes); then each recipe is
planned in a new process, sizes alone (`--untrained`): what metrics take is the validation set's. Half of the time that
the table says of the dense net is asked for. `plan` exports the net, `again` finds its graph kept by the one before;
`started` is what a process takes that only imports what a plan needs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import run
import yaml

from secateur.shell import saving

_INT8 = {"name": "uniform", "per": "row"}
_BLOCKS = {"name": "blocks", "rows": 1, "cols": 4}
_INTEGERS = {"weights": None, "activations": 8}
RECIPES: dict[str, dict[str, Any]] = {
    "topk": {"constrain": [{"where": "*", "with": "topk"}]},
    "blocks 1x4": {"constrain": [{"where": "*", "with": _BLOCKS}]},
    "blocks 1x4, int8": {"constrain": [{"where": "*", "with": [_BLOCKS, _INT8]}], "quantize": _INTEGERS},
    "filters": {"constrain": [{"where": "*.channels", "with": "rows"}]},
}
_SHARE = 0.5  # of the dense net's milliseconds
_IMPORTS = "import secateur.api.plan, secateur.cli, onnx, onnxscript, onnxruntime"


def timed(*command: str) -> tuple[dict[str, float], str]:
    """Seconds and CPU seconds of a new process of Python, and what it prints."""
    began, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(time.perf_counter() - began, 2), "of_cpu": round(cpu, 2)}, done.stdout


def dense_ms(table: dict[str, Any], integers: bool) -> float:
    """What a table says of the dense net."""
    bits = 8 if integers else 32
    point = ("any", 1.0, bits, 1.0)
    rows = [r["us"] for r in table["rows"] if (r["pattern"], r["density"], r["bits"], r["width"]) == point]
    return float(1e-3 * (table["rest_us"][str(bits)] + sum(rows)))


def planned(name: str, folder: Path) -> dict[str, Any]:
    """The seconds of one plan in a new process, and what it predicts."""
    asked = {"model": "resnet:resnet50", "data": "resnet:pictures", **RECIPES[name], "budget": {"latency_ms": 1e9}}
    recipe, table = folder / "recipe.yaml", folder / "table.json"
    recipe.write_text(yaml.safe_dump(asked))
    made, _ = timed("-m", "secateur", "latency", str(recipe), "-o", str(table), "-q")
    ms = _SHARE * dense_ms(json.loads(table.read_text()), "quantize" in asked)
    recipe.write_text(yaml.safe_dump({**asked, "budget": {"latency_ms": ms}}))
    shutil.rmtree(saving.cache_folder() / "graphs", ignore_errors=True)
    plan = ("-m", "secateur", "plan", str(recipe), "--untrained", "--json", "-q")
    (first, _), (again, said) = timed(*plan), timed(*plan)
    found = json.loads(said)
    told = {k: found[k] for k in ("latency_ms", "nbytes", "nbytes_error", "nnz", "macs")}
    return {"table": made, "plan": first, "again": again, "asked_ms": ms, "predicted": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    found: dict[str, Any] = {"started": timed("-c", _IMPORTS)[0]}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            found[name] = planned(name, Path(folder))
            print(name, found[name], flush=True)
    if args.out:
        record = {**run.provenance(), "bars": {"seconds": 10}, "found": found}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
