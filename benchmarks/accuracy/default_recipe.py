"""Is the default recipe a good answer? Small nets, two sizes, the default against recipes made by hand, equal epochs.

    python benchmarks/accuracy/default_recipe.py OUT [--nets conv1d,vit] [--divisors 8,20] [--recipes default,topk]
        [--seeds 0] [--epochs 10] [--table]

One cell is one training. Each appends a line to OUT/cells.jsonl with its provenance; a cell that is there is not run
again. The dense nets are trained once and kept in OUT. Digits come with scikit-learn; `lenet5` and `residual` need
SECATEUR_DATA (6,000 examples of MNIST and Fashion-MNIST are used). `--table` prints Markdown and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

import secateur
from secateur.data.tensors import TensorData
from secateur.zoo import lenet5, ordinary

Pair = tuple[Tensor, Tensor]
Case = tuple[Callable[[], nn.Module], Callable[[], tuple[TensorData, list[Pair]]], int, float]
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "topk": {"constrain": {"with": "topk"}},
    "codebook": {"constrain": {"with": "codebook"}},
    "topk+codebook": {"constrain": {"with": ["topk", "codebook"]}},
    "topk+uniform": {"constrain": {"with": ["topk", "uniform"]}},
    "rows+codebook": {"constrain": {"with": ["rows", "codebook"]}},
    "topk+codebook admm": {"constrain": {"with": ["topk", "codebook"]}, "solver": {"name": "admm"}},
    "default lr 3e-3": {"training": {"lr": 3e-3}},
    "default every 8": {"solver": {"name": "gradual", "every": 8}},
    "topk+codebook one_shot": {"constrain": {"with": ["topk", "codebook"]}, "solver": {"name": "one_shot"}},
}


class Residual(nn.Module):
    """Two residual blocks for 28x28 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24)
        self.a, self.na = nn.Conv2d(24, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24)
        self.down, self.nd = nn.Conv2d(24, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48)
        self.b, self.nb = nn.Conv2d(48, 48, 3, 1, 1, bias=False), nn.BatchNorm2d(48)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = relu(self.norm(self.stem(x)))
        x = relu(x + self.na(self.a(x)))
        x = relu(self.nd(self.down(x)))
        x = relu(x + self.nb(self.b(x)))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


def _digits() -> tuple[TensorData, list[Pair]]:
    from sklearn.datasets import load_digits

    d = load_digits()
    order = torch.randperm(len(d.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(d.images, dtype=torch.float32)[order, None] / 16, torch.tensor(d.target)[order]
    return TensorData(x[:1400], y[:1400], 64), [(x[1400:], y[1400:])]


def _masks() -> tuple[TensorData, list[Pair]]:
    """Noisy digits; the target of a pixel is whether it belongs to the digit."""
    train, ((x, _),) = _digits()
    g = torch.Generator().manual_seed(3)

    def noisy(x: Tensor) -> Pair:
        return x + 0.3 * torch.randn(x.shape, generator=g), (x[:, 0] > 0.3).long()

    return TensorData(*noisy(train.inputs), 64), [noisy(x)]


def _part(name: str) -> Callable[[], tuple[TensorData, list[Pair]]]:
    def load() -> tuple[TensorData, list[Pair]]:
        splits = secateur.load_data(name)
        train, valid = splits.train, next(iter(splits.valid))
        return TensorData(train.inputs[:6000], train.targets[:6000], 64), [valid]

    return load


NETS: dict[str, Case] = {  # how to build it, its data, epochs and learning rate of the dense training
    "conv1d": (lambda: ordinary.Conv1dNet(8, (64, 64, 96)), _digits, 10, 3e-3),
    "vit": (lambda: ordinary.ViT(8, 2, depth=2), _digits, 20, 1e-3),
    "mobilenet": (lambda: ordinary.MobileNet(widths=(16, 24, 32)), _digits, 10, 3e-3),
    "unet": (ordinary.UNet, _masks, 4, 3e-3),
    "lenet5": (lenet5, _part("mnist"), 4, 1e-3),
    "residual": (Residual, _part("fashion_mnist"), 8, 3e-3),
}


def dense_net(name: str, out: Path) -> nn.Module:
    """Trained once with Adam and a cosine, and kept in `out`."""
    build, data, epochs, lr = NETS[name]
    torch.manual_seed(1)
    net, path = build(), out / f"{name}.safetensors"
    if path.exists():
        net.load_state_dict(load_file(path))
        return net.eval()
    train, _ = data()
    optimizer = torch.optim.Adam(net.parameters(), lr)
    total = epochs * len(train)
    for step, (x, y) in enumerate(_batches(train, epochs)):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / total))
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    save_file(net.state_dict(), path)
    return net.eval()


def _batches(train: TensorData, epochs: int) -> Iterator[Pair]:
    for epoch in range(epochs):
        yield from train.order(torch.Generator().manual_seed(epoch))


def cell(name: str, divisor: int, recipe: str, seed: int, epochs: float, out: Path) -> dict[str, Any]:
    """One training under 1/`divisor` of the bytes that the float32 parameters take."""
    net = dense_net(name, out)
    train, valid = NETS[name][1]()
    asked = sum(p.numel() * 4 for p in net.parameters()) // divisor
    settings: dict[str, Any] = {"baselines": [], "bench": {"against": [], "seconds": 0.001}}
    settings |= RECIPES[recipe]
    settings["training"] = {"threads": 1, **RECIPES[recipe].get("training", {})}
    settings["solver"] = {"name": "gradual", **settings.get("solver", {}), "epochs": epochs}
    began, spent = time.time(), time.process_time()
    row: dict[str, Any] = {"net": name, "divisor": divisor, "recipe": recipe, "seed": seed, "epochs": epochs}
    try:
        result = secateur.compress(
            net, train, valid=valid, budget={"nbytes": f"{asked}B"}, recipe=settings, seed=seed, on_progress=False
        )
    except secateur.errors.BudgetError as e:
        row |= {"refused": str(e)}
    else:
        report = result.report
        row |= {"asked": asked, "nbytes": report["compressed"]["nbytes"], "nnz": report["compressed"]["nnz"]}
        row |= {k: report[k]["metric"]["value"] for k in ("dense", "compressed")}
        with torch.no_grad():
            losses = [float(cross_entropy(result.model(x), y)) for x, y in valid]
        row["loss"] = sum(losses) / len(losses)
    return {**row, "seconds": round(time.time() - began, 1), "cpu_seconds": round(time.process_time() - spent, 1)}


def provenance() -> dict[str, str]:
    """Commit, versions, CPU, date."""
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    cpus = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "cpu": cpus[0].partition(": ")[2] if cpus else platform.processor(),
        "load": f"{os.getloadavg()[0]:.1f} of {os.cpu_count()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: accuracy by net and size, a column a recipe; refused cells are dashes. Means over seeds."""
    names = [r for r in RECIPES if any(x["recipe"] == r for x in rows)]
    lines = [f"| net, size | dense | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for net, divisor in dict.fromkeys((x["net"], x["divisor"]) for x in rows):
        here = [x for x in rows if (x["net"], x["divisor"]) == (net, divisor)]
        dense = next((x["dense"] for x in here if "dense" in x), math.nan)
        shown = []
        for name in names:
            cells = [x for x in here if x["recipe"] == name]
            found = [x["compressed"] for x in cells if "compressed" in x]
            shown.append(f"{100 * sum(found) / len(found):.1f}" if found else "refused" if cells else "")
        lines.append(f"| {net}, 1/{divisor} | {100 * dense:.1f} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for option, default in (("nets", ",".join(NETS)), ("divisors", "8,20"), ("recipes", ",".join(RECIPES))):
        parser.add_argument(f"--{option}", default=default)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "cells.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    known = {(x["net"], x["divisor"], x["recipe"], x["seed"], x["epochs"]) for x in rows}
    for net in args.nets.split(","):
        for divisor in map(int, args.divisors.split(",")):
            for recipe in args.recipes.split(","):
                for seed in map(int, args.seeds.split(",")):
                    if (net, divisor, recipe, seed, args.epochs) in known:
                        continue
                    row = {**cell(net, divisor, recipe, seed, args.epochs, args.out), **provenance()}
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps({k: row.get(k) for k in ("net", "divisor", "recipe", "compressed", "refused")}))


if __name__ == "__main__":
    main()
