"""What a machine decides, claimed in a report and measured again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.budget import kinds
from secateur.native import _native
from secateur.types import Inventory

PREDICTED = "predicted"  # `met` by a table that was given: nothing was timed
_AGAIN = 0.1  # of a limit: what another hour on the same machine may differ by
_BUSY = 1.5  # times a limit: more is no matter of the machine's mood
_TRIES = 3


def again(row: Mapping[str, Any], onnx: bytes) -> tuple[float | None, bool | None, str]:
    """A row of the budget whose kind a machine decides: what is found here, whether the claim holds, and why.

    A limit is held where the file keeps it within a tenth and the margins of both readings; the best of three counts.
    What is slower than that is no proof against the claim, as long as a busy machine may explain it: None then.
    """
    said = f"the report says {row['reached']:g}"
    if row["met"] == PREDICTED:
        return None, None, f"{said}, predicted by a table; nothing was measured"
    if row.get("cpu") != (here := _native.cpu_name()):
        return None, None, f"{said}, measured on {row.get('cpu')}; this is {here}"
    asked, meter = row["asked"], kinds.meter(row["name"])
    found, margin = float("inf"), 0.0
    for _ in range(_TRIES):
        reading = meter.reading(Inventory((), lambda: 0, lambda: onnx))
        if reading["value"] < found:
            found, margin = reading["value"], reading.get("margin", 0.0)
        allowed = (1 + _AGAIN) * asked + margin + (row.get("margin") or 0.0)
        if found <= allowed:
            break
    said += f"; again {found:g} ± {margin:g}"
    if not row["met"] or row["reached"] > asked or found > _BUSY * asked:
        return found, False, said
    return found, True if found <= allowed else None, said if found <= allowed else f"{said}: is the machine busy?"
