"""Is the default recipe a good answer? Eight small nets, two sizes, the default against five recipes made by hand.

    python benchmarks/accuracy/default_recipe.py OUT.json [--nets conv1d,vit] [--divisors 8,20]
        [--recipes default,topk] [--seeds 0] [--epochs 10] [--table]

Nets, data and dense trainings are those of `tests/first_try` (what scikit-learn brings; short trainings); every recipe
gets the same epochs. One cell is one compression; each is written into OUT.json with its provenance as soon as it is
done, and a cell that is there is not run again. The dense nets are kept beside OUT.json. `--table` prints Markdown and
trains nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateur
from secateur.shell import saving

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "speed")]
from run import provenance  # noqa: E402
from tests.first_try.nets import CASES  # noqa: E402

Json = dict[str, Any]
SLOW: Json = {"training": {"lr": 1e-3}}  # what every recipe had by default when the first cells were run
RECIPES: dict[str, Json] = {
    "default": {},
    "codebook": {"constrain": {"with": "codebook"}, **SLOW},
    "topk, uniform": {"constrain": {"with": ["topk", "uniform"]}, **SLOW},
    "rows, codebook": {"constrain": {"with": ["rows", "codebook"]}, **SLOW},
    "topk, codebook by admm": {"constrain": {"with": ["topk", "codebook"]}, "solver": {"name": "admm"}, **SLOW},
    "topk, codebook at lr 3e-3": {"constrain": {"with": ["topk", "codebook"]}, "training": {"lr": 3e-3}},
}
KEY = ("net", "divisor", "recipe", "seed", "epochs")


def dense_net(name: str, folder: Path) -> nn.Module:
    """Trained once, kept in `folder`."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        save_file(CASES[name].trained().state_dict(), path)
    net = CASES[name].build()
    net.load_state_dict(load_file(path))
    return net.eval()


def ordered(train: Any, seed: int) -> Any:
    """The loader in an order of its own for every seed: most of these nets have nothing else that is random."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(train, list):
        return [train[i] for i in torch.randperm(len(train), generator=generator)] if seed else train
    train.generator.manual_seed(seed)
    return train


def cell(net: nn.Module, name: str, divisor: int, recipe: str, seed: int, epochs: float) -> Json:
    """One compression to 1/`divisor` of the bytes that the float32 parameters take; metrics on validation."""
    train, valid = CASES[name].data()
    train = ordered(train, seed)
    asked = sum(p.numel() * 4 for p in net.parameters()) // divisor
    given = RECIPES[recipe]
    settings = {
        **given,
        "baselines": [],
        "bench": {"against": [], "seconds": 0.001},
        "training": {"threads": 1, **given.get("training", {})},
        "solver": {"name": "gradual", **given.get("solver", {}), "epochs": epochs},
    }
    began = time.process_time()
    row: Json = dict(zip(KEY, (name, divisor, recipe, seed, epochs), strict=True)) | {"asked": asked}
    try:
        result = secateur.compress(
            net, train, valid=valid, budget={"nbytes": asked}, recipe=settings, seed=seed, on_progress=False
        )
    except (secateur.errors.BudgetError, secateur.errors.UsageError) as e:  # UsageError: no such channels
        row["refused"] = str(e)
    else:
        report = result.report
        row |= {k: report["compressed"][k] for k in ("nbytes", "nnz")}
        row |= {k: report[k]["metric"] for k in ("dense", "compressed")}
        row |= {k: report[k] for k in ("cpu", "versions")}
    return {**row, "cpu_seconds": round(time.process_time() - began, 1)}


def table(rows: list[Json]) -> str:
    """Markdown: accuracy in percent by net and size, means over seeds, and the default minus the best made by hand."""
    names = [r for r in RECIPES if any(x["recipe"] == r for x in rows)]
    lines = [f"| net, size | dense | {' | '.join(names)} | default - best |", "|---" * (len(names) + 3) + "|"]
    for net, divisor in dict.fromkeys((x["net"], x["divisor"]) for x in rows):
        here = [x for x in rows if (x["net"], x["divisor"]) == (net, divisor)]
        cells = {n: [x for x in here if x["recipe"] == n and "compressed" in x] for n in names}
        mean = {n: 100 * fmean(x["compressed"]["value"] for x in found) for n, found in cells.items() if found}
        by_hand = [v for n, v in mean.items() if n != "default"]
        dense = next((f"{100 * x['dense']['value']:.1f}" for x in here if "dense" in x), "")
        tried = {x["recipe"] for x in here}
        shown = [f"{mean[n]:.1f}" if n in mean else "refused" if n in tried else "" for n in names]
        gap = f"{mean['default'] - max(by_hand):+.1f}" if "default" in mean and by_hand else ""
        lines.append(f"| {' | '.join([f'{net}, 1/{divisor}', dense, *shown, gap])} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for option, default in (("nets", ",".join(CASES)), ("divisors", "8,20"), ("seeds", "0")):
        parser.add_argument(f"--{option}", default=default)
    parser.add_argument("--recipes", action="append", help="may be repeated; default: all")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows: list[Json] = json.loads(args.out.read_text()) if args.out.exists() else []
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {tuple(x[k] for k in KEY) for x in rows}
    seeds, divisors = (tuple(map(int, text.split(","))) for text in (args.seeds, args.divisors))
    for seed, net in product(seeds, args.nets.split(",")):
        dense = dense_net(net, args.out.parent)
        for divisor, recipe in product(divisors, args.recipes or RECIPES):
            if (net, divisor, recipe, seed, args.epochs) in known:
                continue
            origin = {k: v for k, v in provenance().items() if k in ("commit", "date", "load_average")}
            row = {**cell(dense, net, divisor, recipe, seed, args.epochs), **origin}
            rows.append(row)
            saving.write_bytes(args.out, saving.to_json(rows))
            print(json.dumps({k: row.get(k) for k in (*KEY, "compressed", "refused", "cpu_seconds")}), flush=True)


if __name__ == "__main__":
    main()
