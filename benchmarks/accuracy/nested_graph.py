"""Two nested levels of a graph attention network in one file: what does each cost? Claim 14 of the literature's.

    python benchmarks/accuracy/nested_graph.py runs/nested-graph --out benchmarks/results/nested-graph.json

The paper keeps 13.38 % of the weights at the dense accuracy, and 5.38 % nested inside them for 3.25 % less, relative to
it. Here: GAT on Cora as the study `families` trains it, `nested` over `topk` with these two shares, and beside the
chain two single nets of the same counts, by the same solver. Validation chooses the epoch; the 1,000 test nodes are
read once, by the packed file at each level.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from secateur import api
from secateur.engine import InferenceSession
from secateur.proof.judge import Session
from secateur.reproduce import plan, study
from secateur.shell import saving

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))
from run import provenance  # noqa: E402

KEPT = (0.1338, 0.0538)  # of the weights, as the paper has them
CLAIMED = (0.0, -0.0325)  # relative to the dense net
SOLVER = {"name": "gradual", "epochs": 6}


def recipe(n: int, share: float | None = None) -> dict[str, Any]:
    """`n` nonzeros, and inside them a level of a `share` of these."""
    inner: Any = "topk" if share is None else {"name": "nested", "of": "topk", "shares": [share]}
    return {
        "constrain": [{"where": "*", "with": inner}],
        "budget": {"nnz": n},
        "solver": SOLVER,
        "training": {"batch_size": 1, "threads": 1},
        "baselines": [],
        "bench": {"against": [], "seconds": 0.1},
    }


def one(running: study.Running, seed: int) -> dict[str, Any]:
    """Accuracy on test and nonzeros of the dense net, of the chain's levels and of the single nets."""
    maker, cell, kind = running._maker(seed), running.study.cells["dense"], running.study.plan.kind
    if not (maker.folder / cell.name / "model.safetensors").is_file():
        maker.make(cell, resume=False)
    dense, test = maker.model(cell), list(running.splits.test)
    n_weights = running.study.plan.n_weights
    counts = [int(share * n_weights) for share in KEPT]
    found: dict[str, Any] = {"dense": {"test": kind.judge(test)(dense), "nnz": n_weights}}
    asked = {
        "chain": recipe(counts[0], counts[1] / counts[0]),
        **{f"single {share:.2%}": recipe(n) for share, n in zip(KEPT, counts, strict=True)},
    }
    for name, its in asked.items():
        result = api.compress(
            maker.model(cell),
            running.splits.train,
            valid=running.splits.valid,
            loss=kind.loss(),
            evaluate=kind.select(running.splits.valid),
            higher_is_better=False,
            recipe=its,
            seed=seed,
            on_progress=False,
        )
        place = maker.folder / name
        result.save(place)
        assert result.verify()["passed"], f"{place}: does not verify"
        file = place / "model.sct"
        for level in range(2 if name == "chain" else 1):
            session = InferenceSession(file, level=level) if name == "chain" else InferenceSession(file)
            row = {"test": kind.judge(test)(Session(session)), "nbytes": file.stat().st_size}
            found[f"level {level}" if name == "chain" else name] = row
    return found


def summary(seeds: dict[str, Any]) -> dict[str, Any]:
    """Mean and spread of each net, and what it lost relative to its own dense net."""
    rows = {}
    for name in next(iter(seeds.values())):
        tests = [found[name]["test"] for found in seeds.values()]
        lost = [found[name]["test"] / found["dense"]["test"] - 1 for found in seeds.values()]
        spread = {"test_sd": stdev(tests), "relative_sd": stdev(lost)} if len(tests) > 1 else {}
        rows[name] = {"test": fmean(tests), "relative": fmean(lost), **spread}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where nets are written; dense ones of the study are taken")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    running = study.Running(plan.read(study.path("families"), "gat"), args.folder)
    record: dict[str, Any] = {**provenance(), "kept": KEPT, "claimed": CLAIMED, "solver": SOLVER, "seeds": {}}
    for seed in args.seeds:
        record["seeds"][str(seed)] = one(running, seed)
        print(seed, json.dumps(record["seeds"][str(seed)]), flush=True)
    record["nets"] = summary(record["seeds"])
    print(json.dumps(record["nets"], indent=1))
    if args.out:
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
