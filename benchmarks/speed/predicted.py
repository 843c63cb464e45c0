"""What the cost model says of layers beside what they take, in one thread, by kernel and kind of layer.

    python benchmarks/speed/predicted.py --make files   # the nets, dense and 10 %, float32 and int8; minutes
    python benchmarks/speed/predicted.py files --out predicted.json
    python benchmarks/speed/predicted.py --table engine/plan/rates_avx2.inc   # what `secateur calibrate` finds, to ship

By the table that is shipped for this kind of CPU; --calibrated goes by what `secateur calibrate` kept, --plain by the
cost models alone.

The error of a layer is |predicted / measured - 1|, of a group its mean over layers; what takes less than 2 us is left
out, for a step's start is no smaller than that.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import run

from secateur.engine import calibrate, plans, rates
from secateur.native import _native
from secateur.shell import saving

NETS = ("resnet20", "resnet50", "mobilenetv2", "vgg16", "bert-layer")
DENSITIES = (1.0, 0.1)
_LEAST_US = 2.0
_TURN_MS, _TURNS = 60.0, 5  # of one file: the quietest turn of a layer counts
_KEPT = ("kernel", "input", "output", "weight", "nnz", "rate", "why", "predicted_us", "time_us")


def make(folder: Path, names: Iterable[str]) -> None:
    """`NET-DENSITY-fp32.onnx` and, with zeros in 1x4 blocks, `-int8.onnx`."""
    from int8 import quantized
    from nets import net_file

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for density in DENSITIES:
            stem = folder / f"{name}-{density:g}"
            saving.write_bytes(Path(f"{stem}-fp32.onnx"), net_file(name, density))
            saving.write_bytes(Path(f"{stem}-int8.onnx"), quantized(net_file(name, density, 0, (1, 4))))
            print(stem, flush=True)


def kind(step: dict[str, Any]) -> str:
    """As "1x1", "3x3", "3x3 depthwise", "linear": what the weight's shape says."""
    shape = step["weight"] or ()
    if len(shape) != 4:
        return "linear"
    one = shape[1] == 1 and step["input"][1] > 1
    return f"{shape[2]}x{shape[3]}{' depthwise' if one else ''}"


def measured(files: list[Path], by: rates.Rates | None) -> list[dict[str, Any]]:
    """The layers for which the model has a figure; all files in turn, for a machine is slow for seconds at a time."""
    sessions = [_native.Session(file.read_bytes(), 1, rates=by) for file in files]
    once = [sum(s["time_us"] for s in session._explain(1, 1)) / 1000 for session in sessions]
    repeats = [max(5, min(30, int(_TURN_MS / ms))) for ms in once]
    turns = [[s._explain(1, n) for s, n in zip(sessions, repeats, strict=True)] for _ in range(_TURNS)]
    found = []
    for file, passes in zip(files, zip(*turns, strict=True), strict=True):
        for same in zip(*passes, strict=True):
            step = min(same, key=lambda s: s["time_us"])
            if step["predicted_us"] and step["time_us"] >= _LEAST_US:
                kept = {key: step[key] for key in _KEPT}
                found.append({"file": file.stem, "kind": kind(step), **kept})
    return found


def error(group: list[dict[str, Any]]) -> float:
    return float(np.mean([abs(r["predicted_us"] / r["time_us"] - 1) for r in group]))


def summary(found: list[dict[str, Any]], *keys: str) -> dict[str, dict[str, float]]:
    """By what `keys` say: layers, mean error, geometric mean of predicted / measured."""
    groups = defaultdict(list)
    for r in found:
        groups[", ".join(r[k] for k in keys)].append(r)
    return {
        name: {
            "layers": len(group),
            "error": round(error(group), 4),
            "ratio": round(float(np.exp(np.mean([np.log(r["predicted_us"] / r["time_us"]) for r in group]))), 4),
        }
        for name, group in sorted(groups.items())
    }


def show(groups: dict[str, dict[str, float]]) -> None:
    print(f"{'':54} {'layers':>6} {'error':>7} {'predicted/measured':>20}")
    for name, g in groups.items():
        print(f"{name:54} {g['layers']:6} {g['error']:7.1%} {g['ratio']:20.2f}")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--make", action="store_true", help="write the nets there")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--calibrated", action="store_true", help="by what `secateur calibrate` kept")
    parser.add_argument("--plain", action="store_true", help="by the cost models alone")
    parser.add_argument("--table", type=Path, help="calibrate, and write the table to this .inc file")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    if args.table:
        lines = [f'{{"{name}", {rate:g}}},\n' for name, rate in calibrate.measured().items()]
        saving.write_bytes(args.table, "".join(lines).encode())
        return 0
    if args.folder is None:
        parser.error("the folder of the nets is missing")
    if args.make:
        make(args.folder, args.nets)
        return 0
    by = {} if args.plain else rates.read(plans.machine()) if args.calibrated else None
    files = [file for net in args.nets for file in sorted(args.folder.glob(f"{net}-*.onnx"))]
    found = measured(files, by)
    by_file, by_kernel = summary(found, "file"), summary(found, "kernel", "kind")
    show(by_file)
    show(by_kernel)
    print(f"mean error of {len(found)} layers: {error(found):.1%}")
    if args.out:
        record = {**run.provenance(), "mean_error": error(found), "by_file": by_file, "by_kernel": by_kernel}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
