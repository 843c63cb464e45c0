"""Predicted against measured latency of whole nets at random levels, the way a run predicts and measures them.

    python benchmarks/speed/latency_model.py --out benchmarks/results/latency-model.json

Each allocation draws a share of zeros for every layer, prunes at once without training, and asks for a limit that
cannot bind: the record then holds what the machine's table said and what the written file took (the median of 300 runs
and more, one thread, batch 1). Random weights serve: only where zeros lie matters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch
from scipy.stats import spearmanr

import secateur
from secateur import zoo
from secateur.data.tensors import TensorData
from secateur.shell import saving

NETS = {"fashion": ("fashion_resnet", (1, 28, 28)), "resnet20": ("resnet20", (3, 32, 32))}
KINDS: dict[str, tuple[Any, Any]] = {  # set, quantize
    "float, zeros anywhere": ("topk", None),
    "int8, 1x4 blocks": (
        [{"name": "blocks", "rows": 1, "cols": 4}, {"name": "uniform", "per": "row"}],
        {"weights": None, "activations": 8, "calibration": {"batches": 1}},
    ),
}
LEAST, MOST = 0.3, 0.98  # share of zeros


def allocation(net: str, kind: str, seed: int) -> dict[str, float]:
    """Predicted and measured ms at one random allocation."""
    build, shape = NETS[net]
    torch.manual_seed(seed)
    model = getattr(zoo, build)().eval()
    generator = torch.Generator().manual_seed(seed)
    data = TensorData(torch.randn(64, *shape, generator=generator), torch.arange(64) % 10, batch_size=64)
    rng = np.random.default_rng(seed)
    set_, quantize = KINDS[kind]
    bits = {"bits": 8} if quantize else {}
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    entries = [
        {"where": name, "with": set_, "level": {"sparsity": float(rng.uniform(LEAST, MOST)), **bits}} for name in names
    ]
    recipe = {
        "constrain": entries,
        "solver": {"name": "one_shot", "epochs": 0},
        "baselines": [],
        "bench": {"seconds": 0.01, "against": []},
        "training": {"threads": 1},
        **({"quantize": quantize} if quantize else {}),
    }
    result = secateur.compress(model, data, recipe=recipe, budget={"latency_ms": 1000}, seed=seed, on_progress=False)
    row = result.report["budget"][0]
    return {"predicted_ms": row["predicted"], "measured_ms": row["reached"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--allocations", type=int, default=20)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    found = []
    for net in args.nets:
        for kind in args.kinds:
            rows = [allocation(net, kind, seed) for seed in range(args.allocations)]
            said, took = (np.array([r[k] for r in rows]) for k in ("predicted_ms", "measured_ms"))
            error = np.abs(said / took - 1)
            summary = {
                **{"net": net, "kind": kind},
                "median_error": float(np.median(error)),
                "largest_error": float(error.max()),
                "rank_correlation": float(spearmanr(said, took).statistic),
            }
            found.append({**summary, "rows": rows})
            print(
                f"{net}, {kind}: {took.min():.4f} to {took.max():.4f} ms; error {error.max():.1%} at most, "
                f"{np.median(error):.1%} in the median; rank correlation {summary['rank_correlation']:.3f}",
                flush=True,
            )
    if args.out:
        record = {**run.provenance(), "bars": {"median_error": 0.1, "rank_correlation": 0.95}, "found": found}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0 if all(f["median_error"] <= 0.1 and f["rank_correlation"] >= 0.95 for f in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
