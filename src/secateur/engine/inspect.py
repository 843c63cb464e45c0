"""What is in a model file and what the engine would do with it."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

from secateur.engine.coverage import coverage
from secateur.engine.session import InferenceSession, read_model
from secateur.errors import HandedOverWarning, MissingExtraError, UnsupportedError, UsageError
from secateur.formats import Section, pack, sections, unpack
from secateur.formats import levels as levels_of
from secateur.native import _native

_REPEATS = 30  # timed runs of every step


def inspect(
    path_or_bytes: str | os.PathLike[str] | bytes,
    batch: int = 1,
    *,
    time: bool = False,
    tune: str | None = None,
    level: int = 0,
) -> dict[str, Any]:
    """Describe an `.onnx` or `.sct` file, any exporter's, layer by layer.

    Args:
        path_or_bytes: the file or its bytes.
        batch: size given to free dimensions, for MACs and times.
        time: measure every layer, on one thread and a fixed pseudo-random input.
        tune: as of `InferenceSession`.
        level: of a file that holds several, which one the layers are of; a tighter one's bytes are those of a file of
            its own.
    Returns:
        `levels` (level, n_weights, nnz, nbytes that the file spends on it, nbytes_alone of a file of that level; empty
        where the file has one), `level`,
        `format` ("onnx" or "sct"), `nbytes` of the file, `opset`, `ir_version`, `inputs`, `outputs` (name, type,
        shape), `isa`, `cpu`, `notes` (what was folded and fused), `refused` (why the engine cannot run it alone, or
        None), `coverage` (of `InferenceSession`; by operators alone where ONNX Runtime is needed and missing),
        and `layers`, one dict per node that does arithmetic or holds constants:
        name, op, shape (of the weight or None), n_weights, nnz, density, n_values (distinct nonzero values), bits,
        structure (list of what was found), stored_only (those that the kernel does not use: what is left runs weight by
        weight, zeros are left out or computed), macs (dense), macs_nonzero, nbytes (of its constants in this file),
        bound_nbytes (.sct only, else None: [log2 C(n, nnz) + nnz H0(values) + codebook bits] / 8, before the format's
        1.03 and 32 bytes a tensor),
        kernel and why (what the engine chose; "fused" where another layer took it in; of a quantized layer that is not
        one of integers also why),
        arithmetic ("int8" or "float32" of a layer with weights that the engine runs, else None),
        plain_loops (a layer's worth of work in reference code: no kernel takes it),
        predicted_us (the cost model's; None: it has none), time_us (measured, with what moves data for the layer; None
        without `time`), slow (measured at more than twice the prediction and 1 us).
        `totals`: n_weights, nnz, density, macs, macs_nonzero, constants_nbytes, other_nbytes (graph and names), nbytes,
        predicted_us (of the layers that have one), time_us (of all), n_slow, n_plain_loops.
    Raises:
        UsageError, FormatError: as `InferenceSession`. A node that no runtime takes is not an error but `refused`.
    """
    data = read_model(path_or_bytes)
    if batch < 1:
        raise UsageError(f"inspect(): batch={batch}; it must be >= 1")
    nbytes, levels = len(data), _levels(data)
    data = pack(unpack(data, level=level)) if level else data
    found = _native.layers(data)
    coded = {s.name: s for s in sections(data) if s.kind == "tensor"} if _is_sct(data) else None
    session, refused = _session(data, tune)
    steps = _steps(session, batch, _REPEATS if time else 0) if session is not None and session.known_shapes else {}
    covered = session.coverage if session is not None else coverage(data)
    steps |= {h["node"]: h | {"kernel": "onnxruntime"} for h in covered["handed_over"]}
    layers = [_layer(row, steps.get(row["index"]) or steps.get(row["name"]), coded) for row in found["layers"]]
    layers = [row for row in layers if row["n_weights"] or row["nbytes"] or row["kernel"]]
    return {
        "levels": levels,
        "level": level,
        "format": "sct" if coded is not None else "onnx",
        "nbytes": nbytes,
        "opset": found["opsets"].get("ai.onnx"),
        "ir_version": found["ir_version"],
        "inputs": _values(session.get_inputs()) if session else [],
        "outputs": _values(session.get_outputs()) if session else [],
        "isa": session.isa if session else None,
        "cpu": _native.cpu_name(),
        "tune": session.tune if session else None,
        "notes": session.notes if session else [],
        "refused": refused,
        "coverage": covered,
        "layers": layers,
        "totals": _totals(layers, len(data)),
    }


def _levels(data: bytes) -> list[dict[str, Any]]:
    """What a file of several levels holds of each."""
    n = levels_of(data)
    if n == 1:
        return []
    coded, rows = sections(data), []
    for level in range(n):
        model = unpack(data, level=level)
        layers = _native.layers(model)["layers"]
        own = [s.nbytes for s in coded if (s.kind == f"level {level}" if level else not s.kind.startswith("level "))]
        totals = {key: sum(row[key] for row in layers) for key in ("n_weights", "nnz")}
        rows.append({"level": level, **totals, "nbytes": sum(own), "nbytes_alone": len(pack(model))})
    return rows


def _is_sct(data: bytes) -> bool:
    return bool(_native.is_sct(data))


def _session(model: bytes, tune: str | None) -> tuple[InferenceSession | None, str | None]:
    """A session if any runtime takes the model, and why the engine alone does not."""
    alone, refused = None, None
    try:
        alone = InferenceSession(model, threads=1, fallback=None, tune=tune)
    except UnsupportedError as error:
        refused = str(error)
    if alone is not None and not any(map(_plain_loops, alone.explain(repeats=0) if alone.known_shapes else [])):
        return alone, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HandedOverWarning)  # told in `coverage`
            return InferenceSession(model, threads=1, tune=tune), refused
    except (UnsupportedError, MissingExtraError):
        return alone, refused


def _plain_loops(step: Mapping[str, Any]) -> bool:
    """Whether the step is a layer for which there is no kernel."""
    return bool(step["kernel"].endswith("_ref") and step["why"].startswith("plain loops"))


def _steps(session: InferenceSession, batch: int, repeats: int) -> dict[int | str, dict[str, Any]]:
    """The telling step of every node, by its number in the file; by its name where the model was cut into parts.

    Some steps only move data for a node; the first step of a node with weights is the one that tells. Its times are
    those of all steps of the node.
    """
    whole = not session.coverage["handed_over"]
    steps: dict[int | str, dict[str, Any]] = {}
    for step in session.explain(batch=batch, repeats=repeats):
        key = step["layer"] if whole else step["node"]
        known = steps.get(key)
        if known is None:
            steps[key] = step
            continue
        times = {name: _sum(known[name], step[name]) for name in ("predicted_us", "time_us")}
        telling = step if step["n_weights"] and not known["n_weights"] else known
        steps[key] = telling | times | {"input": known["input"]}  # the node's own: what moves data comes first
    return steps


def _sum(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else a + b


def _values(nodes: list[_native.NodeArg]) -> list[dict[str, Any]]:
    return [{"name": n.name, "type": n.type, "shape": list(n.shape)} for n in nodes]


def _layer(row: dict[str, Any], step: dict[str, Any] | None, coded: dict[str, Section] | None) -> dict[str, Any]:
    n_weights, nnz = row["n_weights"], row["nnz"]
    positions = _positions(row["op"], step) if step and step.get("n_weights") else 0
    stored = [coded[name] for name in row["constants"] if name in coded] if coded is not None else None
    predicted, time = (step.get(name) if step else None for name in ("predicted_us", "time_us"))
    return {
        "name": row["name"],
        "op": row["op"],
        "shape": list(row["shape"]) or None,
        "n_weights": n_weights,
        "nnz": nnz,
        "density": nnz / n_weights if n_weights else None,
        "n_values": row["n_values"] or None,
        "bits": row["bits"] or None,
        "structure": row["structure"],
        "stored_only": [found for found in row["structure"] if step and not _runs(found, step["kernel"])],
        "macs": n_weights * positions,
        "macs_nonzero": nnz * positions,
        "nbytes": row["nbytes"] if stored is None else sum(s.nbytes for s in stored),
        "bound_nbytes": None if stored is None else round(sum(s.bound_nbytes for s in stored), 2),
        "kernel": step["kernel"] if step else ("fused" if n_weights == 0 and row["nbytes"] else ""),
        "why": step["why"] if step else "",
        "arithmetic": _arithmetic(row, step),
        "plain_loops": bool(step and _plain_loops(step)),
        "predicted_us": predicted,
        "time_us": time,
        "slow": predicted is not None and time is not None and time > 2 * predicted + 1,
    }


def _positions(op: str, step: Mapping[str, Any]) -> int:
    """How often every weight of a layer is multiplied, by the operator's definition."""
    if op != "ConvTranspose":
        return int(step["macs"]) // int(step["n_weights"])
    rows, _, *cells = step["input"]  # the engine computes windows beyond the picture too, and weaves it from phases
    return math.prod((rows, *cells))


def _runs(structure: str, kernel: str) -> bool:
    """Does the kernel gain by what was found in the weights? Whole channels are cut, grids are values."""
    block = re.search(r"_block(\d+)_", kernel) or re.search(r"^qconv_(\d+)x(\d+)_(?!row)", kernel)
    if structure.endswith("columns zero"):  # blocks of any height
        return "_block" in kernel
    if found := re.fullmatch(r"(\d+)x(\d+) blocks", structure):
        rows, cols = (int(block[1]), int(block[2]) if block.lastindex == 2 else 1) if block else (0, 0)
        return rows > 0 and int(found[1]) % rows == 0 and int(found[2]) % cols == 0
    return not re.search(r"^\d+:\d+$|kernels empty$| patterns of ", structure)


def _arithmetic(row: dict[str, Any], step: dict[str, Any] | None) -> str | None:
    if not step or not step["kernel"] or step["kernel"] == "onnxruntime":
        return None
    if step["kernel"].startswith("qconv_") or row["op"] in ("ConvInteger", "MatMulInteger"):
        return "int8"
    return "float32" if row["n_weights"] else None


def _totals(layers: list[dict[str, Any]], nbytes: int) -> dict[str, Any]:
    def total(key: str) -> int:
        return sum(int(row[key]) for row in layers)

    def microseconds(key: str) -> float | None:
        known = [row[key] for row in layers if row[key] is not None]
        return round(sum(known), 2) if known else None

    n_weights, constants = total("n_weights"), total("nbytes")
    return {
        "n_weights": n_weights,
        "nnz": total("nnz"),
        "density": round(total("nnz") / n_weights, 6) if n_weights else None,
        "macs": total("macs"),
        "macs_nonzero": total("macs_nonzero"),
        "constants_nbytes": constants,
        "other_nbytes": nbytes - constants,
        "nbytes": nbytes,
        "predicted_us": microseconds("predicted_us"),
        "time_us": microseconds("time_us"),
        "n_slow": total("slow"),
        "n_plain_loops": total("plain_loops"),
    }
