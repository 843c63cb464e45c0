"""What is read once everything is chosen: the test part by the written files, and the timing of the written nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.reproduce.kinds import Kind
from secateur.shell import runtimes

Json = dict[str, Any]
_SPEED_INPUTS = 64  # real test images in rotation
_CLOSE = 1e-4  # of the largest output: where nothing is classified, outputs that near are the same


def test(folder: Path, kind: Kind, part: Any) -> Json:
    """The measure of `model.sct` in the engine on this part, and how many answers ONNX Runtime gives alike."""
    from secateur.engine import InferenceSession
    from secateur.export import written
    from secateur.proof.judge import Session
    from secateur.training.batches import tensors

    batches = list(part)
    rows = written.fixed_batch((folder / "model.onnx").read_bytes())
    whole = len(tensors(batches[0][0])[0]) == rows  # a graph: taken as it is
    session = InferenceSession(folder / "model.sct")
    engine = Session(session, rows=None if whole else rows)
    found: Json = {"test": kind.judge(batches)(engine), "n_test": 0, "same_as_onnxruntime": None}
    ran = session.coverage
    found["coverage"] = {
        **{k: ran[k] for k in ("n_nodes", "n_engine", "macs")},
        "handed_over": sorted({x["op"] for x in ran["handed_over"]}),
    }
    try:
        ort = runtimes.onnxruntime()
    except ImportError:
        peer = None
    else:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        theirs = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        peer = Session(theirs, rows=None if whole else rows)
    counted = [_alike(engine, peer, batch, kind) for batch in batches]
    found["n_test"] = sum(n for n, _ in counted)
    if peer is not None:
        found["same_as_onnxruntime"] = sum(same for _, same in counted)
    return found


def _alike(engine: Any, peer: Any, batch: Any, kind: Kind) -> tuple[int, int]:
    """Answers asked of a batch, and in how many both runtimes agree: the class, or a number within rounding."""
    from secateur.training.batches import call
    from secateur.training.metrics import IGNORED

    inputs, targets = batch
    ours = call(engine, inputs)
    asked = ours == ours if kind.numbers else targets != IGNORED
    if peer is None:
        return int(asked.sum()), 0
    theirs = call(peer, inputs)
    if kind.numbers:
        same = (ours - theirs).abs() <= _CLOSE * theirs.abs().max()
    else:
        same = ours.argmax(1) == theirs.argmax(1)
    return int(asked.sum()), int((same & asked).sum())


def speed(folder: Path, asked: Mapping[str, str], seconds: float, part: Any) -> Json:
    """Batch 1, one thread, interleaved: two nets beside the dense one. `asked`: part, control, dense -> cell."""
    from secateur.engine.bench import bench
    from secateur.training.batches import first_tensor

    dense = folder / asked["dense"] / "model.onnx"
    if not dense.is_file():
        return {}
    x = first_tensor(next(iter(part))[0])[:_SPEED_INPUTS].numpy()
    found: Json = {}
    for key in ("part", "control"):
        model = folder / asked[key] / "model.sct"
        if model.is_file():
            timed = bench(model, against=("onnxruntime", "openvino"), inputs=x, dense=dense, seconds=seconds)
            found[asked[key]] = {k: timed[k] for k in ("latency_ms", "ratios", "skipped", "cpu", "isa", "threads")}
    return found


def latency(places: Mapping[str, Path], against: Sequence[str], seconds: float, part: Any) -> Json:
    """Many nets beside each other: batch 1 (a graph: as a whole), one thread, the same test inputs, interleaved.

    Args:
        places: name -> folder with `model.onnx`, the file that every runtime gets.
    Returns:
        As `engine.side_by_side`, and `made`: date, machine, versions.
    """
    from secateur.engine import InferenceSession, side_by_side
    from secateur.export import written
    from secateur.proof.judge import feeds
    from secateur.reproduce.making import provenance
    from secateur.training.batches import tensors

    inputs = next(iter(part))[0]
    models = {name: (place / "model.onnx").read_bytes() for name, place in places.items()}
    first = next(iter(models.values()))
    rows = len(tensors(inputs)[0])
    whole = written.fixed_batch(first) == rows
    names = [i.name for i in InferenceSession(first).get_inputs()]
    given = {name: x if whole else x[:_SPEED_INPUTS] for name, x in feeds(names, inputs).items()}
    timed = side_by_side(models, given, against=against, seconds=seconds, batch=rows if whole else 1)
    return {**timed, "made": provenance()}
