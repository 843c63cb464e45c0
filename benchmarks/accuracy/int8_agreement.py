"""Do three runtimes answer alike what an int8 file says? Top-1 on all test examples, the kept nets of `iso-accuracy`.

    python benchmarks/accuracy/int8_agreement.py --out benchmarks/results/int8-agreement.json

The engine runs the kept `.sct` file; ONNX Runtime and OpenVINO the `.onnx` file that the study makes of it, ONNX
Runtime without graph optimisation (its integer kernels may saturate on AVX2) and as deployed. Sums of products of codes
are the same everywhere; between layers a float32 result is rounded to a code, and where it lies between two, each
runtime may take another one. `codes` is by how much outputs differ on the examples that are classified differently, in
steps of the last layer's input: what one code there moves an output by at most. A difference of many is no tie.

OpenVINO joins a convolution, the sum behind it and the rounding of that sum, and leaves out the rounding that the file
writes between the first two. A file with such sums is compared with it a second time without these roundings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from secateur.engine import InferenceSession, peers
from secateur.export.stored import initializers
from secateur.proof.judge import whole_split
from secateur.reproduce import plan, study
from secateur.shell import runtimes, saving

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))
from run import provenance  # noqa: E402

Array = np.ndarray[Any, Any]
PARTS = ("int8", "blocks", "filters")
SEED = 0


def nets(task: str, folder: Path) -> Iterator[tuple[str, Path, Any]]:
    """Name, folder with `model.sct` and `model.onnx`, and the splits, of every kept int8 net of that task."""
    running = study.Running(plan.read(study.path("iso-accuracy"), task), folder)
    for name, cell in running.study.cells.items():
        place = folder / f"seed{SEED}" / name
        if cell.part in PARTS and (place / "model.sct").is_file():
            running._maker(SEED).restore(cell)
            yield name, place, running.splits


def last_code(model: bytes) -> float:
    """What one code of the last layer's input moves an output by at most."""
    graph = onnx.load_model_from_string(model).graph
    made = {o: n for n in graph.node for o in n.output}
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    last = next(n for n in reversed(graph.node) if n.op_type in ("Gemm", "MatMul", "Conv"))
    source = made[last.input[0]]
    while source.op_type != "DequantizeLinear":
        source = made[source.input[0]]
    weight = made.get(last.input[1])
    name = weight.input[0] if weight is not None else last.input[1]
    return float(values[source.input[1]].max() * np.abs(initializers(model)[name.removesuffix(".T")]).max())


def without_roundings(model: bytes) -> bytes | None:
    """The file whose sums read the results of convolutions as they are; None where it has no such sum."""
    net = onnx.load_model_from_string(model)
    made = {o: n for n in net.graph.node for o in n.output}
    found = False
    for n in (n for n in net.graph.node if n.op_type == "Add"):
        for i, name in enumerate(n.input):
            back = made.get(name)
            if back is not None and back.op_type == "DequantizeLinear" and back.input[0] in made:
                exact = made[back.input[0]].input[0]
                if exact in made and made[exact].op_type == "Conv":
                    n.input[i], found = exact, True
    return bytes(net.SerializeToString()) if found else None


def unoptimised(model: bytes, x: Array) -> Array:
    """The first output of ONNX Runtime without graph optimisation."""
    ort = runtimes.onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    n = 100 if isinstance(given.shape[0], str) else 1
    return np.concatenate([session.run(None, {given.name: x[i : i + n]})[0] for i in range(0, len(x), n)])


def answers(place: Path, x: Array) -> dict[str, Array]:
    """Outputs by runtime, [examples, classes]."""
    sct, model = (place / "model.sct").read_bytes(), (place / "model.onnx").read_bytes()
    session = InferenceSession(sct, threads=1)
    name = session.get_inputs()[0].name
    theirs = onnx.load_model_from_string(model).graph.input[0].name
    calls = {"engine": lambda a: session.run(None, {name: a})[0]}
    for peer, make in (("onnxruntime", peers.onnxruntime), ("openvino", peers.openvino)):
        call = make(model, 1, {theirs: (1, *x.shape[1:])})[0]
        calls[peer] = lambda a, call=call: call({theirs: a})[0]
    found = {k: np.concatenate([np.array(call(x[i : i + 1])) for i in range(len(x))]) for k, call in calls.items()}
    return found | {"onnxruntime, unoptimised": unoptimised(model, x)}


def apart(ours: Array, theirs: Array, step: float) -> dict[str, Any]:
    """How often and by how much one runtime answers otherwise than another."""
    other = np.flatnonzero(theirs.argmax(1) != ours.argmax(1))
    gaps = np.abs(theirs - ours).max(axis=1)
    return {
        "same_outputs": int((gaps <= 1e-4 * np.abs(ours).max()).sum()),
        "other_class": len(other),
        "examples": other.tolist(),
        "codes": [round(float(gaps[i]) / step, 3) for i in other],
        "most_codes_anywhere": round(float(gaps.max()) / step, 3),
    }


def judged(place: Path, x: Array, y: Array) -> dict[str, Any]:
    """Top-1 of each runtime, and how often and by how much the others answer otherwise than the engine."""
    found, model = answers(place, x), (place / "model.onnx").read_bytes()
    step, ours = last_code(model), found["engine"]
    rows = {runtime: {"top1": float((theirs.argmax(1) == y).mean())} for runtime, theirs in found.items()}
    for runtime in found.keys() - {"engine"}:
        rows[runtime] |= apart(ours, found[runtime], step)
    plainer = without_roundings(model)
    if plainer is not None:
        rows["openvino"]["beside the file without roundings before sums"] = apart(
            unoptimised(plainer, x), found["openvino"], step
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["fsdd", "fashion"])
    parser.add_argument("--only", default="", help="nets whose name begins so")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    record: dict[str, Any] = {**provenance(), "seed": SEED, "tasks": {}}
    for task in args.tasks:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "benchmarks" / "nets" / task / f"seed{SEED}", Path(folder) / f"seed{SEED}")
            for name, place, splits in nets(task, Path(folder)):
                if not name.startswith(args.only):
                    continue
                (x,), y = whole_split(splits, "test")
                found = judged(place, x, y)
                record["tasks"].setdefault(task, {"n_test": len(y), "nets": {}})["nets"][name] = found
                print(task, name, json.dumps(found), flush=True)
    if args.out:
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
