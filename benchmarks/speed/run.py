"""Time real layer shapes and whole nets in the engine, ONNX Runtime and OpenVINO: interleaved, checked, one thread.

    python benchmarks/speed/run.py --what layers --density 0.1 0.05 --out benchmarks/results/speed-layers.json

`--what choice` times the engine alone: the kernels that the plan chooses beside dense kernels only, on the same pruned
layer (the law: never slower than our own dense kernels). `--what call` times a call that computes nothing. `--int8`
quantizes all files, prunes in 1x4 blocks and compares with the dense net in int8 and in float32. `--what small` times
twenty small nets of other kinds (small.py), dense and pruned, and sums them up against ONNX Runtime.

Weights are random and pruned uniformly: they serve for speed only. Each row compares the pruned file in the engine with
the *dense* file in the peers and in the engine, and the results of all runtimes with one another in the same run.
Publish ratios, not times: a ratio is taken per round of turns, so that a busy machine disturbs both sides.

`--isa avx2` runs everything at a level below the machine's best. OpenVINO is limited alike; ONNX Runtime cannot be, and
the record says so: against it the table then flatters nobody but ONNX Runtime.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import int8
import nets
import numpy as np
import shapes
import small

from secateur.engine import isas
from secateur.engine.bench import COLD_CALLS, N_INPUTS, bench
from secateur.native import _native

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
        "cpu": _native.cpu_name(),
        "isa_asked": os.environ.get("SECATEUR_ISA"),
        "limited": {"openvino": os.environ.get("ONEDNN_MAX_CPU_ISA"), "onnxruntime": None},
        "platform": platform.platform(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "command": " ".join(sys.argv),
    }


# What keeps OpenVINO's kernels below a level of ours.
ONEDNN = {
    "portable": "SSE41",
    "avx2": "AVX2",
    "avxvnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE",
    "vnni": "AVX512_CORE_VNNI",
}


def at_level(isa: str) -> None:
    """Start this program anew at that level: the runtimes read it once, when they are loaded."""
    limits = {"SECATEUR_ISA": isa} | ({"ONEDNN_MAX_CPU_ISA": ONEDNN[isa]} if isa in ONEDNN else {})
    if any(os.environ.get(name) != value for name, value in limits.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **limits})


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


def choice(name: str, pruned: bytes, density: float, seconds: float, repeats: int) -> dict[str, Any]:
    """The plan's choice beside dense kernels only, in turns of 32 inputs; a ratio is taken per pair of turns."""
    sessions = (_native.Session(pruned, 1, True), _native.Session(pruned, 1, False))
    (node,) = sessions[0].get_inputs()
    rng = np.random.default_rng(0)
    feeds = [{node.name: rng.standard_normal([1, *node.shape[1:]]).astype(np.float32)} for _ in range(N_INPUTS)]
    outputs = [[s.run(None, f)[0] for f in feeds] for s in sessions]
    error = max(float(np.max(np.abs(a - b))) for a, b in zip(*outputs, strict=True))
    size = max(float(np.max(np.abs(a))) for a in outputs[1])

    def turn(session: _native.Session) -> float:
        for feed in feeds[:COLD_CALLS]:
            session.run(None, feed)
        times = []
        for feed in feeds:
            began = time.perf_counter()
            session.run(None, feed)
            times.append(1e6 * (time.perf_counter() - began))
        return statistics.median(times) / repeats

    until, us = time.perf_counter() + 2 * seconds, []
    while time.perf_counter() < until or len(us) < 5:
        first = len(us) % 2
        pair = {i: turn(sessions[i]) for i in (first, 1 - first)}
        us.append((pair[0], pair[1]))
    p10, median, p90 = np.percentile([dense / ours for ours, dense in us], [10, 50, 90])
    return {
        "name": name,
        "density": density,
        "us": {"choice": statistics.median(a for a, _ in us), "dense kernels": statistics.median(b for _, b in us)},
        "faster_than_own_dense": {"median": float(median), "p10": float(p10), "p90": float(p90)},
        "agree": error <= 1e-4 * size,
        "max_abs_error": error,
        "kernels": [r["kernel"] for r in sessions[0]._explain(1, 0)],
        "isa": sessions[0].isa,
        "threads": 1,
    }


def show_choice(r: dict[str, Any]) -> str:
    """One line of the table of choices."""
    us, ratio = r["us"], r["faster_than_own_dense"]
    gain = f"{ratio['median']:6.2f}x ({ratio['p10']:.2f}-{ratio['p90']:.2f})"
    kind = "sparse" if any("_sparse_" in k for k in r["kernels"]) else "dense"
    return (
        f"{r['name']:<22} {100 * r['density']:6.1f} {us['choice']:9.2f} {us['dense kernels']:9.2f} {gain:<22} "
        f"{kind:<7} {'ok' if r['agree'] else 'DIFFERS'}"
    )


def identity() -> bytes:
    """A net that computes nothing, [1, 784] in and out: its time is the cost of a call."""
    b = shapes.Builder(1.0, 0)
    return b.file([784], b.node("Identity", "x"))


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


def cases(
    what: str, names: Sequence[str] | None, density: float, block: shapes.Block
) -> Iterator[tuple[str, bytes, bytes, int]]:
    """(name, pruned file, dense file, how often the layer stands in it) of what is asked for."""
    if what == "call":
        yield "identity", identity(), identity(), 1
    elif what == "nets":
        for net in names or nets.NETS:
            yield net, nets.net_file(net, density, block=block), nets.net_file(net, 1.0), 1
    elif what == "small":
        for net in names or small.BUILD:
            yield net, *(small.BUILD[net](shapes.Builder(d, 0, block)) for d in (density, 1.0)), 1
    else:
        for net, layer in shapes.shapes(tuple(names or shapes.NETS)):
            pruned, repeats = shapes.layer_file(layer, density, block=block)
            yield f"{net}.{layer.name}", pruned, shapes.layer_file(layer, 1.0)[0], repeats


def sum_up(rows: list[dict[str, Any]]) -> str:
    """ONNX Runtime's time with the dense net by ours: geometric mean and least, dense and pruned."""
    lines = []
    for what, of in (("dense", "dense"), ("pruned", "model")):
        ratios = {r["name"]: r["us"]["dense"]["onnxruntime"] / r["us"][of]["engine"] for r in rows}
        least = min(ratios, key=lambda name: ratios[name])
        mean = statistics.geometric_mean(ratios.values())
        lines.append(
            f"{what}, against dense ONNX Runtime: {mean:.2f}x in the mean, least {ratios[least]:.2f}x ({least})"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, measure, print, write; exit 1 when any two runtimes disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("layers", "nets", "small", "choice", "call"), default="layers")
    parser.add_argument("--nets", nargs="+", choices=(*nets.NETS, *small.BUILD), default=None)
    parser.add_argument("--density", nargs="+", type=float, help="default: 0.1 0.05; choice: 1 0.6 0.3 0.1 0.02")
    parser.add_argument("--seconds", type=float, default=0.5, help="per runtime and file")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    parser.add_argument("--int8", action="store_true", help="of layers or nets: static QDQ, pruned in 1x4 blocks")
    parser.add_argument(
        "--block", metavar="OUTxIN", help="channels pruned together, such as 16x1; default 1x1, int8: 1x4"
    )
    parser.add_argument(
        "--isa", choices=isas(), help="a level below the machine's best, peers limited where they can be"
    )
    parser.add_argument("--cpu-time", action="store_true", help="with --int8: CPU time, for a machine others use too")
    args = parser.parse_args()
    if args.isa:
        at_level(args.isa)
    try:
        outputs, inputs = (int(n) for n in (args.block or ("1x4" if args.int8 else "1x1")).split("x"))
    except ValueError:
        parser.error(f"--block {args.block}: two numbers with an x between them are needed, such as 16x1")
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.int8:
        print(
            "layer, blocks %, us of sparse int8, of own dense int8, best int8 peer, best fp32 peer, dense int8 / ORT's"
        )
    elif args.what == "choice":
        print(f"{'layer':<22} {'dens.%':>6} {'choice us':>9} {'dense us':>9} {'faster by':<22} kernels")
    else:
        columns = f"{'layer':<22} {'dens.%':>6} {'sparse us':>9} {'dense us':>9} {'best dense peer us':<22}"
        print(f"{columns} {'sparse against it':<22} {'dense':>7}")
    rows = []
    for density in args.density or {"choice": (1.0, 0.6, 0.3, 0.1, 0.02), "call": (1.0,), "small": (0.1,)}.get(
        args.what, (0.1, 0.05)
    ):
        for name, pruned, dense, repeats in cases(args.what, args.nets, density, (outputs, inputs)):
            if args.int8:
                rows.append(int8.row(name, pruned, dense, density, args.seconds, repeats, PEERS, clock))
                print(int8.show(rows[-1]), flush=True)
            elif args.what == "choice":
                rows.append(choice(name, pruned, density, args.seconds, repeats))
                print(show_choice(rows[-1]), flush=True)
            else:
                rows.append(row(name, pruned, dense, density, args.seconds, repeats))
                print(show(rows[-1]), flush=True)
    if args.what == "small" and all("onnxruntime" in r["us"]["dense"] for r in rows):
        print(sum_up(rows))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps(
                {"provenance": provenance(), "what": args.what, "block": [outputs, inputs], "rows": rows}, indent=1
            )
            + "\n"
        )
    return 0 if all(r["agree"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
