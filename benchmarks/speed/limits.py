"""What the engine promises beside speed per layer: two threads, session load, peak memory, the cost of a call.

    python benchmarks/speed/limits.py --files FOLDER --make         # writes the models, minutes
    python benchmarks/speed/limits.py --files FOLDER --what threads load memory call --out limits.json

Every figure stands beside its bar and, where there is one, ONNX Runtime's on the dense model, measured in the same run.
Load and memory are measured in fresh processes, five each (three for memory); memory is the peak resident size after
loading from the file and three runs, less that of a process with an Identity net.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import int8
import nets
import numpy as np
from run import identity, provenance
from shapes import Builder, vgg16_features

from secateur.engine import InferenceSession, isas
from secateur.engine.bench import COLD_CALLS, bench
from secateur.formats import pack

DENSITY = 0.1
BARS = {"threads": 1.7, "load_seconds": 1.5, "memory_ratio": 0.5, "call_us": 5.0}
BURST = 6  # calls of a turn


def vgg16_224(density: float) -> bytes:
    """VGG-16 for ImageNet, 138 million weights; the stem and the last layer stay dense."""
    b = Builder(density, 0)
    x = b.linear(b.linear(vgg16_features(b), 512 * 49, 4096), 4096, 4096)
    return b.file([3, 224, 224], b.linear(x, 4096, 1000, relu=False, prune=False))


def make(folder: Path) -> None:
    """The models, each once."""
    pruned = nets.net_file("resnet50", DENSITY)
    recipes: dict[str, Callable[[], bytes]] = {
        "identity.onnx": identity,
        "resnet50.onnx": lambda: pruned,
        "resnet50.sct": lambda: pack(pruned),
        "resnet50-dense.onnx": lambda: nets.net_file("resnet50", 1.0),
        "resnet50-int8.onnx": lambda: int8.quantized(nets.net_file("resnet50", DENSITY, block=(1, 4))),
        "vgg16.onnx": lambda: vgg16_224(DENSITY),
        "vgg16.sct": lambda: pack((folder / "vgg16.onnx").read_bytes()),
        "vgg16-dense.onnx": lambda: vgg16_224(1.0),
    }
    for name, build in recipes.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(build())
            print(name, flush=True)


def threads(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """One thread's time over two threads', in turns; the same bits are asked for."""
    rows = []
    for name in ("resnet50.onnx", "resnet50-int8.onnx"):
        sessions = [InferenceSession(folder / name, threads=n) for n in (1, 2)]
        rng = np.random.default_rng(0)
        feeds = [{"x": rng.standard_normal((1, 3, 224, 224)).astype(np.float32)} for _ in range(8)]
        same = all(np.array_equal(*(s.run(None, f)[0] for s in sessions)) for f in feeds)

        def turn(session: InferenceSession, feeds: list[dict[str, Any]] = feeds) -> float:
            times = []
            for i in range(COLD_CALLS + BURST):
                start = time.perf_counter()
                session.run(None, feeds[i % len(feeds)])
                times.append(1e3 * (time.perf_counter() - start))
            return statistics.median(times[COLD_CALLS:])

        pairs: list[tuple[float, float]] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or len(pairs) < 5:
            first = len(pairs) % 2
            ms = {i: turn(sessions[i]) for i in (first, 1 - first)}
            pairs.append((ms[0], ms[1]))
        p10, median, p90 = np.percentile([one / two for one, two in pairs], [10, 50, 90])
        rows.append(
            {
                "name": f"two threads, {name}",
                "ms": {"1": statistics.median(p[0] for p in pairs), "2": statistics.median(p[1] for p in pairs)},
                "ratio": {"median": median, "p10": p10, "p90": p90},
                "same_bits": same,
                "bar": BARS["threads"],
                "met": bool(same and median >= BARS["threads"]),
            }
        )
    return rows


_LOAD = """
import sys, time
import numpy
import secateur
secateur.InferenceSession(sys.argv[1], threads=1)  # imports, CPU features
start = time.perf_counter()
secateur.InferenceSession(sys.argv[2], threads=1)
print(time.perf_counter() - start)
"""


def load(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Seconds to open a file; what is imported only once is not counted."""
    rows = []
    for name in ("resnet50.onnx", "resnet50.sct", "resnet50-int8.onnx", "resnet50-dense.onnx"):
        times = [float(_fresh(_LOAD, folder / "identity.onnx", folder / name)) for _ in range(5)]
        rows.append(
            {
                "name": f"load, {name}",
                "seconds": {"median": statistics.median(times), "min": min(times), "max": max(times)},
                "nbytes": (folder / name).stat().st_size,
                "bar": BARS["load_seconds"],
                "met": statistics.median(times) <= BARS["load_seconds"],
            }
        )
    return rows


_PEAK = """
import sys
import numpy
runtime, path = sys.argv[1:]
if runtime == "engine":
    import secateur
    session = secateur.InferenceSession(path, threads=1)
else:
    from secateur import runtimes
    onnxruntime = runtimes.onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
(x,) = session.get_inputs()
feed = {x.name: numpy.zeros([1, *x.shape[1:]], numpy.float32)}
for _ in range(3):
    session.run(None, feed)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(*(status[key].split()[0] for key in ("VmHWM", "VmRSS")))
"""


def memory(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Peak resident MB of VGG-16 at 224x224: the pruned net in the engine, the dense one in ONNX Runtime."""

    def mb(runtime: str, name: str) -> tuple[float, float]:
        """(peak, at the end), least of three processes: what else runs can only add."""
        found = [[int(v) / 1000 for v in _fresh(_PEAK, runtime, folder / name).split()] for _ in range(3)]
        return min(f[0] for f in found), min(f[1] for f in found)

    empty = {runtime: mb(runtime, "identity.onnx") for runtime in ("engine", "onnxruntime")}
    theirs = [a - b for a, b in zip(mb("onnxruntime", "vgg16-dense.onnx"), empty["onnxruntime"], strict=True)]
    rows = []
    for name in ("vgg16.onnx", "vgg16.sct"):
        ours = [a - b for a, b in zip(mb("engine", name), empty["engine"], strict=True)]
        rows.append(
            {
                "name": f"memory, {name}",
                "peak_mb": {"engine": ours[0], "onnxruntime_dense": theirs[0]},
                "resident_mb": {"engine": ours[1], "onnxruntime_dense": theirs[1]},
                "ratio": ours[0] / theirs[0],
                "bar": BARS["memory_ratio"],
                "met": ours[0] / theirs[0] <= BARS["memory_ratio"],
            }
        )
    return rows


def call(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """`run()` of an Identity on [1, 784]."""
    found = bench(folder / "identity.onnx", against=("onnxruntime",), seconds=seconds)
    us = {k: {p: 1e3 * v for p, v in t.items()} for k, t in found["latency_ms"]["model"].items()}
    met = us["engine"]["median"] <= BARS["call_us"]
    return [{"name": "call, identity [1, 784]", "us": us, "bar": BARS["call_us"], "met": met}]


def _fresh(code: str, *argv: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, check=True)
    return done.stdout


WHAT = {"threads": threads, "load": load, "memory": memory, "call": call}


def main() -> int:
    """Parse, measure, print, write; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True, help="folder of the models")
    parser.add_argument("--make", action="store_true", help="write the models and stop")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--seconds", type=float, default=10.0, help="of threads and call, per model")
    parser.add_argument(
        "--out", type=Path, help="JSON with provenance; figures of this run replace those of their kind"
    )
    args = parser.parse_args()
    if args.make:
        args.files.mkdir(parents=True, exist_ok=True)
        make(args.files)
        return 0
    rows = []
    for what in args.what:
        for row in WHAT[what](args.files, args.seconds):
            origin = provenance()
            origin["command"] = origin["command"].replace(str(args.files), "FOLDER")
            rows.append({"what": what, **row, "provenance": origin, "isa": isas()[-1]})
            print(json.dumps(row, default=float), flush=True)
    if args.out:
        kept = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        kept = [r for r in kept if r["what"] not in args.what]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"rows": [*kept, *rows]}, indent=1, default=float) + "\n")
    return 0 if all(r["met"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
