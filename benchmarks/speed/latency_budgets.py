"""Are budgets in milliseconds met, and does a refusal name a value that a second run reaches?

    python benchmarks/speed/latency_budgets.py --out benchmarks/results/latency-budgets.json

A small net of the bundled digits, whose table is made once; one-shot projection without training, for only what the
files take is asked. Budgets lie between the fastest net and the dense one of each kind of sets; then one that cannot be
met, and the value that its refusal names. Each kind tells the machine and the commit that it was made on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch

import secateur
from secateur import zoo
from secateur.data import digits
from secateur.errors import BudgetError
from secateur.native import _native
from secateur.shell import saving

_CODES = {"name": "uniform", "per": "row", "dense": False}
_BLOCKS = {"name": "blocks", "rows": 1, "cols": 4}
_INTEGERS = {"weights": None, "activations": 8, "calibration": {"batches": 1}}
KINDS: dict[str, tuple[list[Any], Any]] = {
    "float, zeros anywhere": ([{"where": "*", "with": "topk"}], None),
    "int8, 1x4 blocks": ([{"where": "*", "with": [_BLOCKS, _CODES]}], _INTEGERS),
    "int8, filters and 1x4 blocks": (
        [{"where": "*", "with": [_BLOCKS, _CODES]}, {"where": "*.channels", "with": "rows"}],
        _INTEGERS,
    ),
}


def compressed(kind: str, ms: float, seed: int = 0) -> dict[str, Any]:
    """The row of the budget, or what was refused."""
    torch.manual_seed(0)
    entries, quantize = KINDS[kind]
    recipe = {
        "constrain": entries,
        "solver": {"name": "one_shot", "epochs": 0},
        "baselines": [],
        "bench": {"seconds": 0.01, "against": []},
        "training": {"threads": 1},
        **({"quantize": quantize} if quantize else {}),
    }
    data = digits.load()
    given = {"recipe": recipe, "budget": {"latency_ms": ms}, "seed": seed, "on_progress": False}
    try:
        found = secateur.compress(zoo.digits_cnn().eval(), data.train, valid=data.valid, **given)
    except BudgetError as e:
        return {"asked": ms, "refused": True, "smallest": e.smallest}
    row = found.report["budget"][0]
    kept = ("asked", "reached", "margin", "predicted", "met")
    return {**{k: row[k] for k in kept}, "trims": sum("trim" in s["name"] for s in found.report["stages"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--budgets", type=int, default=7, help="of each kind")
    parser.add_argument("--out", type=Path, help="JSON with provenance; what is there of other kinds is kept")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in args.kinds:
        refused = compressed(kind, 1e-4)
        least = refused["smallest"]
        again = compressed(kind, least)
        dense = compressed(kind, 1000.0)["predicted"]
        asked = np.geomspace(1.15 * least, 0.95 * dense, args.budgets)
        rows = [compressed(kind, round(float(ms), 6)) for ms in asked]
        met = sum(r.get("met") is True for r in rows)
        here = run.provenance()
        made = {k: here[k] for k in ("date", "commit", "cpu", "load_average")} | {"isa": _native.isas()[-1]}
        told = {"refused": refused, "again": again, "dense_ms": dense, "met": met, "rows": rows}
        found[kind] = {"made": made, **told}
        print(
            f"{kind}: {met} of {len(rows)} met, {asked[0]:.4f} to {asked[-1]:.4f} ms; {least} after a refusal: {again}"
        )
        for r in rows:
            print(f"  {r}", flush=True)
    if args.out:
        kept = json.loads(args.out.read_text())["found"] if args.out.is_file() else {}
        record = {**run.provenance(), "bar": "19 of 20 met", "found": {**kept, **found}}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
