"""Seconds that `secateur plan` takes for a ResNet-50 of 224x224 pixels under a budget in milliseconds, one thread.

    python benchmarks/speed/planning.py --out benchmarks/results/speed-plan.json

A table of the machine's kernels is made first where none is kept (minutes); then each recipe is planned, sizes alone
(as `plan --untrained`): what metrics take is the validation set's. Half of the time that the dense net is predicted to
take is asked for. Weights are random.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import time
from pathlib import Path
from typing import Any

import run
import torch
from torch import Tensor, nn

from secateur.api.asked import Asked, by_objects, make_job
from secateur.api.plan import _plan
from secateur.graph import counts
from secateur.recipe import Recipe
from secateur.shell import saving
from secateur.training.checkpoint import Ledger

RECIPES: dict[str, dict[str, Any]] = {
    "topk": {"constrain": [{"where": "*", "with": "topk"}]},
    "blocks 1x4": {"constrain": [{"where": "*", "with": {"name": "blocks", "rows": 1, "cols": 4}}]},
    "blocks 1x4, int8": {
        "constrain": [{"where": "*", "with": {"name": "blocks", "rows": 1, "cols": 4}}],
        "quantize": {"weights": 8, "activations": 8},
    },
    "topk, int8": {"constrain": [{"where": "*", "with": "topk"}], "quantize": {"weights": 8, "activations": 8}},
    "filters": {"constrain": [{"where": "*", "with": "filters"}]},
}
_SHARE = 0.5  # of the dense net's milliseconds


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut."""

    def __init__(self, n_in: int, inner: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * inner
        self.conv1, self.bn1 = nn.Conv2d(n_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        wider = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.downsample = wider if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def resnet50() -> nn.Module:
    """He et al., CVPR 2016, arXiv:1512.03385, table 1; strides in the 3x3 layers, as all use it."""
    torch.manual_seed(0)
    blocks, width = [], 64
    for stage, (inner, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for i in range(depth):
            blocks.append(Bottleneck(width, inner, 2 if stage and not i else 1))
            width = 4 * inner
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def asked() -> Asked:
    batch = [(torch.randn(2, 3, 224, 224), torch.tensor([1, 2]))]
    return by_objects(resnet50(), batch, nn.functional.cross_entropy, None, None, True, None, None)


def planned(recipe: dict[str, Any], ms: float) -> dict[str, Any]:
    """One plan, its seconds (the net at hand, all modules loaded) and what it predicts."""
    net = asked()
    began, used = time.perf_counter(), time.process_time()
    found = _plan(net, Recipe.of(recipe, {"latency_ms": ms}, 0), None, untrained=True)
    seconds = {"seconds": time.perf_counter() - began, "of_cpu": time.process_time() - used}
    return {**{k: round(v, 2) for k, v in seconds.items()}, "predicted_ms": found["latency_ms"], "asked_ms": ms}


def dense_ms(recipe: dict[str, Any]) -> float:
    """What the table says of the dense net; the table is made here, where none is kept."""
    job = make_job(asked(), Recipe.of(recipe, {"latency_ms": 1.0}, 0), Ledger(), None)
    assert job.start.machine is not None
    return float(job.start.machine.of(counts.weights(job.dense, job.start.traced), {})["latency_ms"]())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--profile", type=Path, help="cProfile's statistics of the last one")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {}
    for name in args.only:
        began = time.perf_counter()
        ms = _SHARE * dense_ms(RECIPES[name])
        print(name, f"table and dense {time.perf_counter() - began:.1f} s", flush=True)
        profile = cProfile.Profile()
        if args.profile:
            profile.enable()
        found[name] = planned(RECIPES[name], ms)
        profile.disable()
        if args.profile:
            profile.dump_stats(args.profile)
        print(name, found[name], flush=True)
    if args.out:
        record = {**run.provenance(), "bars": {"seconds": 10}, "found": found}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
