"""What to change: said where accuracy was lost, chosen by what the curves of the run show. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.budget import kinds
from secateur.report import words

LOST = 0.10  # a fraction lower than the dense net's by more than this comes with what to change
STEPS_PER_HALVING = 100  # optimizer steps of the whole schedule for each halving of the size
MILD = 4.0  # a smaller reduction needs no schedule to speak of
_PART = 0.03  # what a stage must have lost to be named
_RISING = 0.005  # a last epoch that won more than this was not the end


def too_few(steps: int, rate: float, epochs: float) -> str | None:
    """One sentence when a schedule has too few optimizer steps for a reduction; None when it has enough.

    Args:
        steps: of all stages after the dense training. rate: dense / asked, of the tightest limit.
        epochs: that the steps are; for what to set.
    """
    needed = math.ceil(STEPS_PER_HALVING * math.log2(rate)) if rate >= MILD else 0
    if steps >= needed or not steps:
        return None
    more = math.ceil(epochs * needed / steps)
    return (
        f"{steps} optimizer steps are few for a {rate:.3g}-fold reduction, which wants {needed} or more "
        f"({STEPS_PER_HALVING} for each halving): set solver.epochs to {more} (now {epochs:g})"
    )


def advice(record: Mapping[str, Any]) -> list[str]:
    """What to change, the likeliest cause first; empty where the metric fell by no more than its noise."""
    dense, small = record["dense"].get("metric") or {}, record["compressed"].get("metric") or {}
    gap, error = words.difference(dense, small)
    if gap is None or gap >= -2 * (error or 0.0):
        return []
    found: list[str] = []
    if _is_share(dense, small):
        sign = 1.0 if words.higher_is_better(small) else -1.0
        rows = [r for r in record.get("history") or [] if str(r.get("stage", "")).startswith("main.")]
        found = [*_diverged(rows), *_in_stages(rows, dense["value"], sign), *_still_rising(rows, sign)]
    sizes = [item for item in record["budget"] if item["name"] != kinds.DROP]
    limits = ", ".join(f"{i['name']} {words.amount(i['name'], i.get('asked'))}" for i in sizes)
    larger = f"allow a larger budget ({limits})" if limits else "allow a larger budget"
    return [
        *(found or ["train longer: twice the epochs (solver.epochs) is the first thing to try"]),
        f"{larger}: half the reduction usually costs far less than half the loss",
        *(["spare the first or the last layer: exclude in the recipe"] if len(record["layers"]) > 1 else []),
        "let the dense net teach: objective and polish_objective: [{name: task}, {name: distillation, weight: 0.5}]",
    ]


def is_large(record: Mapping[str, Any]) -> bool:
    """Did a metric that is a share fall by more than `LOST`?"""
    dense, small = record["dense"].get("metric") or {}, record["compressed"].get("metric") or {}
    gap, _ = words.difference(dense, small)
    return gap is not None and gap < -LOST and _is_share(dense, small)


def _is_share(dense: Mapping[str, Any], small: Mapping[str, Any]) -> bool:
    return words.is_fraction(small) or (words.higher_is_better(small) and 0 <= dense["value"] <= 1)


def _diverged(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Stages whose training loss ended above where it began, after the ramp is over (polish, snap)."""
    out = []
    for stage, part in _stages(rows):
        losses = [r["loss"] for r in part if r.get("loss") is not None]
        if stage != "approach" and len(losses) > 1 and losses[-1] > 1.1 * losses[0]:
            key = "training" if stage == "polish" else f"{stage}_training"
            out.append(
                f"the training loss rose in the {stage} ({losses[0]:.3g} to {losses[-1]:.3g}): the learning rate is "
                f"too high there; set {key}.lr to a quarter"
            )
    return out


def _in_stages(rows: Sequence[Mapping[str, Any]], dense: float, sign: float) -> list[str]:
    out, before = [], dense
    say = {
        "approach": "the approach was too fast or the size too small: more solver.epochs (three times as many)",
        "polish": "the polish repairs too little: a larger share for it (solver.polish)",
        "snap": "few values cost it: more of them (constrain: [topk, {name: codebook, min_entries: 16}]), or a larger "
        "share for the snap (solver.snap)",
    }
    for stage, part in _stages(rows):
        after = part[-1]["metric"] if stage == "approach" else sign * max(sign * r["metric"] for r in part)
        if sign * (before - after) > _PART and stage in say:
            out.append(f"{words.percent(before)} became {words.percent(after)} in the {stage}: {say[stage]}")
        before = after
    return out


def _still_rising(rows: Sequence[Mapping[str, Any]], sign: float) -> list[str]:
    for stage, part in _stages(rows)[::-1]:
        if stage in ("polish", "snap") and len(part) > 1:
            won = sign * (part[-1]["metric"] - part[-2]["metric"])
            if won > _RISING:
                return [f"the {stage} still won {100 * won:.1f} points in its last epoch: more solver.epochs"]
            return []
    return []


def _stages(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """approach, polish, snap with their rows in order; the legs of an approach are one."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for r in rows:
        if r.get("metric") is not None:
            found.setdefault(str(r["stage"]).split(".")[1].rstrip("0123456789"), []).append(r)
    return [(k, found[k]) for k in ("approach", "polish", "snap") if k in found]
