"""What of a model the engine runs itself, and what it hands over: as a record, and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.engine.parts import EnginePart, Part
from secateur.limits import quoted, shortened
from secateur.native import _native

_LISTED = 8  # nodes named in a message


def coverage(model: bytes) -> dict[str, Any]:
    """`InferenceSession.coverage` by operators alone, without planning: no shapes, no ONNX Runtime needed."""
    return covered(_native.File(model).partition({})) | {"planned": False}


def covered(found: Mapping[str, Any], parts: Sequence[Part] = ()) -> dict[str, Any]:
    ops, reasons = {name: op for name, op, *_ in found["nodes"]}, found["refused"]
    return {
        "n_nodes": len(ops),
        "n_engine": len(ops) - len(reasons),
        "planned": all(part.session.planned for part in parts if isinstance(part, EnginePart)),
        "macs": {"engine": None if len(reasons) < len(ops) else 0, "handed_over": None if reasons else 0},
        "handed_over": [
            {"node": name, "op": ops[name], "why": why.removeprefix(f"node '{name}' ({ops[name]}): ")}
            for name, why in reasons.items()
        ],
    }


def share(coverage: Mapping[str, Any]) -> str:
    """What the engine covers, in a sentence: share of nodes, of multiply-adds where known, and who takes the rest."""
    ours, rest = coverage["macs"]["engine"], coverage["macs"]["handed_over"]
    macs = (
        f" and {100 * ours / (ours + rest):.1f} % of the multiply-adds"
        if ours is not None and rest is not None and ours + rest
        else ""
    )
    unsure = "" if coverage["planned"] or not coverage["n_engine"] else ", as far as can be told before the first run"
    text = f"{coverage['n_engine']} of {coverage['n_nodes']} nodes{macs} run in the engine{unsure}"
    handed = coverage["handed_over"]
    return f"{text}; ONNX Runtime takes {listed(handed)}" if handed else text


def listed(handed: Sequence[Mapping[str, Any]]) -> str:
    named = ", ".join(f"{quoted(h['node'])} ({shortened(h['op'])}: {shortened(h['why'])})" for h in handed[:_LISTED])
    return named + (f" and {len(handed) - _LISTED} more" if len(handed) > _LISTED else "")
