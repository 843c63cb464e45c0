"""What ADMM costs in training: LeNet-5 steps (batch 128) with and without it, taking turns in one process.

    python benchmarks/speed/admm_step.py --out benchmarks/results/admm-step.json

Both sides run the same loop (forward, backward, Adam); the other one also calls `Compressor.step`. A turn is one whole
round of ADMM, its projection included, against as many plain steps, in slices of ten; which side begins a slice
alternates. The ratio is taken turn by turn. Which thread count is faster here is timed first and recorded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import run
import torch
from torch.nn.functional import cross_entropy

from secateur import Compressor, zoo
from secateur.shell import saving

ROUND, SLICE, BATCH = 200, 10, 128
Step = Callable[[], None]


def sides(n_rounds: int) -> tuple[Step, Step]:
    """One plain step and one ADMM step, each on a model of its own with the same start and the same batches."""
    g = torch.Generator().manual_seed(0)
    batches = [(torch.rand(BATCH, 1, 28, 28, generator=g), torch.randint(10, (BATCH,), generator=g)) for _ in range(8)]

    def side(admm: bool) -> Step:
        torch.manual_seed(0)
        model = zoo.lenet5().to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        total = ROUND * n_rounds
        solver = {"name": "admm", "epochs": 1, "stages": 1, "polish": 0, "round_steps": ROUND}
        recipe = {"constrain": [{"where": "*", "with": "topk"}], "budget": {"nnz": 17220}, "solver": solver}
        example = batches[0][0][:2]
        compressor = Compressor(model, recipe, example, optimizer=optimizer, total_steps=total) if admm else None
        at = 0

        def step() -> None:
            nonlocal at
            x, y = batches[at % len(batches)]
            at += 1
            loss = cross_entropy(model(x), y)
            if compressor is not None:
                loss = loss + compressor.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if compressor is not None:
                compressor.step()

        return step

    return side(False), side(True)


def seconds(step: Step, times: int) -> float:
    """Wall time of so many steps."""
    began = time.perf_counter()
    for _ in range(times):
        step()
    return time.perf_counter() - began


def faster_threads() -> int:
    """1 or as many as there are cores: a busy neighbour makes two slower than one."""
    found = {}
    step = sides(1)[0]
    for n in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(n)
        seconds(step, 3)
        found[n] = seconds(step, 10)
    best = min(found, key=lambda n: found[n])
    torch.set_num_threads(best)
    return best


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="ADMM rounds of 200 steps; the first warms up")
    parser.add_argument("--threads", type=int, help="torch threads; default: the faster of 1 and all")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error(f"--rounds {given.rounds}: at least 2 are needed, the first only warms up")
    if given.threads:
        torch.set_num_threads(given.threads)
    threads = given.threads or faster_threads()
    plain, admm = sides(given.rounds)
    ratios, plain_ms = [], []
    for turn in range(given.rounds):
        spent = [0.0, 0.0]
        for i in range(ROUND // SLICE):
            for k in (0, 1) if i % 2 else (1, 0):
                spent[k] += seconds((plain, admm)[k], SLICE)
        if turn:
            ratios.append(spent[1] / spent[0])
            plain_ms.append(1e3 * spent[0] / ROUND)
        print(
            f"round {turn + 1} of {given.rounds}: {1e3 * spent[0] / ROUND:.2f} ms plain, x{spent[1] / spent[0]:.3f}",
            flush=True,
        )
    record = {
        "what": "LeNet-5, batch 128: an ADMM step over a plain step, rounds amortised",
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "plain_ms": statistics.median(plain_ms),
        "threads": threads,
        "provenance": run.provenance(),
    }
    print(json.dumps(record["ratio"]))
    if given.out:
        saving.write_bytes(given.out, saving.to_json(record))


if __name__ == "__main__":
    main()
