"""Time real layer shapes and whole nets in the engine, ONNX Runtime and OpenVINO: interleaved, checked, one thread.

    python benchmarks/speed/run.py --what layers --density 0.1 0.05 --out benchmarks/results/speed-layers.json

Weights are random and pruned uniformly: they serve for speed only. Each row compares the pruned file in the engine with
the *dense* file in the peers and in the engine, and the results of all runtimes with one another in the same run.
Publish ratios, not times: a ratio is taken per round of turns, so that a busy machine disturbs both sides.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import nets
import shapes

from secateur.engine.bench import bench

PEERS = ("onnxruntime", "openvino")


def provenance() -> dict[str, Any]:
    """What must be known to read the numbers: versions, commit, machine, load, date."""
    versions = {}
    for package in ("secateur", "numpy", *PEERS):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    where = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=where).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "command": " ".join(sys.argv),
    }


def row(name: str, pruned: bytes, dense: bytes, density: float, seconds: float, repeats: int) -> dict[str, Any]:
    """One comparison; `repeats` is how often the layer stands in its file."""
    result = bench(pruned, against=PEERS, dense=dense, seconds=seconds)
    ms = result["latency_ms"]
    peers = [p for p in PEERS if p in ms["dense"]]
    best = min(peers, key=lambda p: ms["dense"][p]["median"]) if peers else None
    ratio = next((r for r in result["ratios"] if tuple(r["of"]) == (best, "dense")), None)
    own = next((r for r in result["ratios"] if tuple(r["of"]) == ("engine", "dense")), None)
    return {
        "name": name,
        "density": density,
        "us": {m: {rt: 1e3 * t["median"] / repeats for rt, t in times.items()} for m, times in ms.items()},
        "best_dense_peer": best,
        "faster_than_best_dense_peer": {k: ratio[k] for k in ("median", "p10", "p90")} if ratio else None,
        "faster_than_own_dense": {k: own[k] for k in ("median", "p10", "p90")} if own else None,
        "own_dense_against_best_peer": ms["dense"][best]["median"] / ms["dense"]["engine"]["median"] if best else None,
        "agree": all(c["agree"] for c in result["checks"]),
        "checks": result["checks"],
        "kernels": result["kernels"],
        "skipped": result["skipped"],
        "cpu": result["cpu"],
        "isa": result["isa"],
        "threads": result["threads"],
    }


def show(r: dict[str, Any]) -> str:
    """One line of the table."""
    us, best = r["us"], r["best_dense_peer"]
    peer = f"{us['dense'][best]:9.1f} {best:<12}" if best else f"{'-':>9} {'-':<12}"
    ratio = r["faster_than_best_dense_peer"]
    gain = f"{ratio['median']:6.2f}x ({ratio['p10']:.2f}-{ratio['p90']:.2f})" if ratio else "-"
    own = r["own_dense_against_best_peer"]
    return (
        f"{r['name']:<22} {100 * r['density']:6.1f} {us['model']['engine']:9.2f} {us['dense']['engine']:9.2f} {peer}"
        f" {gain:<22} {f'{own:.2f}x' if own else '-':>7} {'ok' if r['agree'] else 'DIFFERS'}"
    )


def main() -> int:
    """Parse, measure, print, write; exit 1 when any two runtimes disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("layers", "nets"), default="layers")
    parser.add_argument("--nets", nargs="+", choices=nets.NETS, default=None)
    parser.add_argument("--density", nargs="+", type=float, default=[0.1, 0.05])
    parser.add_argument("--seconds", type=float, default=0.5, help="per runtime and file")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    columns = f"{'layer':<22} {'dens.%':>6} {'sparse us':>9} {'dense us':>9} {'best dense peer us':<22}"
    print(f"{columns} {'sparse against it':<22} {'dense':>7}")
    rows = []
    for density in args.density:
        if args.what == "nets":
            names = args.nets or nets.NETS
            cases = [(n, nets.net_file(n, density), nets.net_file(n, 1.0), 1) for n in names]
        else:
            cases = []
            for net, layer in shapes.shapes(tuple(args.nets or shapes.NETS)):
                pruned, repeats = shapes.layer_file(layer, density)
                cases.append((f"{net}.{layer.name}", pruned, shapes.layer_file(layer, 1.0)[0], repeats))
        for name, pruned, dense, repeats in cases:
            rows.append(row(name, pruned, dense, density, args.seconds, repeats))
            print(show(rows[-1]), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"provenance": provenance(), "what": args.what, "rows": rows}, indent=1) + "\n")
    return 0 if all(r["agree"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
