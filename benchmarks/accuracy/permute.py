"""What an order of the channels is worth for 1x4 blocks at 90 %: energy kept, and accuracy after a short retraining.

    python benchmarks/accuracy/permute.py benchmarks/results/permute.json [--nets fsdd0,fashion0] [--epochs 3]

The dense nets are those of `benchmarks/nets`; blocks lie in all layers but the first and the last. One-shot, with
`permute` and without, each retrained alike with two learning rates: validation chooses one, and the test part is read
once, of what was chosen. A cell is one net in one order; it is written into the file as soon as it is done, and a cell
that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateur
from secateur import data, zoo
from secateur.shell import saving

HERE = Path(__file__).parents[1]
sys.path.append(str(HERE / "speed"))
from run import provenance  # noqa: E402

Json = dict[str, Any]
NETS = {
    **{f"fsdd{seed}": ("fsdd", "fsdd", zoo.speech_cnn, "features.0.weight", seed) for seed in range(3)},
    "fashion0": ("fashion", "fashion_mnist", zoo.fashion_resnet, "conv1.weight", 0),
}
ZEROS, RATES = 0.9, (1e-3, 3e-3)
KEY = ("net", "permute", "epochs")


def accuracy(net: nn.Module, batches: Any) -> float:
    """Share of the examples that are named rightly."""
    with torch.no_grad():
        right = [net(x).argmax(1) == y for x, y in batches]
    return float(torch.cat(right).double().mean())


def cell(name: str, permute: bool, epochs: int, folder: Path | None) -> Json:
    """One net in one order."""
    began = time.perf_counter()
    task, splits_of, build, first, seed = NETS[name]
    dense = build()
    zoo.load_weights(dense, HERE / "nets" / task / f"seed{seed}" / "dense,width=1.0" / "model.safetensors")
    dense.eval()
    splits = data.load(splits_of, folder)
    blocks = {"name": "blocks", "rows": 1, "cols": 4, "permute": permute}
    found = {}
    for rate in RATES:
        recipe = {
            "constrain": {"exclude": [first, "linear.weight"], "with": blocks, "level": {"sparsity": ZEROS}},
            "solver": {"name": "one_shot", "epochs": epochs},
            "training": {"threads": 1, "optimizer": "adam", "lr": rate},
            "baselines": [],
            "bench": {"seconds": 0.01, "against": []},
        }
        given = {"valid": splits.valid, "recipe": recipe, "seed": seed, "on_progress": False}
        result = secateur.compress(dense, splits.train, **given)
        found[rate] = accuracy(result.model, splits.valid), result
    chosen = max(found, key=lambda rate: found[rate][0])
    stages = {s["name"]: s for s in found[chosen][1].report["stages"]}
    energies = {k: stages["permute"][k] for k in ("energy_before", "energy_after")} if permute else {}
    return {
        **dict(zip(KEY, (name, permute, epochs), strict=True)),
        **energies,
        "valid": {str(rate): right for rate, (right, _) in found.items()},
        "lr": chosen,
        "test": accuracy(found[chosen][1].model, splits.test),
        "dense_test": accuracy(dense, splits.test),
        "seconds": round(time.perf_counter() - began, 1),
        "provenance": provenance(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, help="where the data is (or SECATEUR_DATA)")
    args = parser.parse_args()
    cells: list[Json] = json.loads(args.out.read_text())["cells"] if args.out.is_file() else []
    for name, permute in product(args.nets.split(","), (False, True)):
        if (name, permute, args.epochs) in {tuple(c[k] for k in KEY) for c in cells}:
            continue
        cells.append(cell(name, permute, args.epochs, args.data_dir))
        print(json.dumps({k: v for k, v in cells[-1].items() if k != "provenance"}), flush=True)
        what = f"1x4 blocks at {ZEROS:.0%} of the layers between first and last, one-shot, with and without permute"
        saving.write_bytes(args.out, (json.dumps({"what": what, "cells": cells}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
