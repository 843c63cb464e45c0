"""What a recipe without `constrain` asks for: chosen by the budget, and said in one sentence.

Measured in docs/design/default-recipe.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.budget import kinds
from secateur.types import Site

# By what lowers a kind (`Meter.lowered_by`).
_NOTES = {
    "values": "[topk, codebook]: which weights stay, and a few values for them. The file becomes the smallest so, and "
    "runs no faster than scattered zeros let it; for speed write constrain: {with: [topk, uniform]} (int8) or "
    "{with: [rows, codebook]} (whole channels)",
    "channels": "rows: whole channels, which every runtime turns into time{rest}. Values keep 32 bits, so that the "
    "file is larger than it need be; for fewer bytes limit nbytes, or write constrain: {{with: [rows, codebook]}}",
    "weights": "topk: the largest weights wherever they are, with 32-bit values. For a small file limit nbytes, or "
    "write constrain: {with: [topk, codebook]}; for speed {with: rows} (whole channels)",
}


@dataclass(frozen=True)
class Choice:
    """The entries of `constrain`, and the sentence for report, progress and plan: what was taken, why, how else."""

    constrain: tuple[dict[str, Any], ...]
    note: str


def chosen(budget: Collection[str], sought: str, sites: Sequence[Site] = (), groups: Sequence[Site] = ()) -> Choice:
    """The default for the kinds of limits in `budget`; the first of them decides in the order of `kinds.meters`.

    What fewer bits lower (bytes): supports and values jointly. What fewer channels lower (multiply-adds, parameters):
    channels, and single weights where no channels can go. What zeros lower (nonzeros): top-k.

    Args:
        sought: the size that is made small where the accuracy drop is the only limit.
        sites, groups: the weights of the net and its coupled channels.
    """
    meters = kinds.meters()
    kind = next((k for k in meters if k in budget), None)
    why = f"a limit on {kind}"
    if kind is None:
        kind = sought
        why = f"{kinds.DROP} alone (the least {kind} is sought)" if kinds.DROP in budget else "no limit"
    lowered_by = meters[kind].lowered_by
    entries, rest = _entries(lowered_by, sites, groups)
    note = _NOTES[lowered_by]
    if lowered_by == "channels":
        none = not any(e["with"] == "rows" for e in entries)
        note = _NOTES["weights"] if none else note.format(rest=rest)
    return Choice(entries, f"no `constrain` was given: {why} takes {note}")


def _entries(lowered_by: str, sites: Sequence[Site], groups: Sequence[Site]) -> tuple[tuple[dict[str, Any], ...], str]:
    if lowered_by == "values":
        return ({"where": "*", "with": ["topk", "codebook"]},), ""
    coupled = {m.param for g in groups for m in (*g.members, *g.removes)}
    alone = [s.name for s in sites if s.op not in ("bias", "norm") and s.name not in coupled]
    if lowered_by == "weights" or not groups:
        return ({"where": "*", "with": "topk"},), ""
    if not alone:
        return ({"where": "*", "with": "rows"},), ""
    named = f"{', '.join(alone[:3])}{f' and {len(alone) - 3} more' if len(alone) > 3 else ''}"
    entries = ({"where": "*", "with": "rows"}, {"where": alone, "with": "topk"})
    return entries, f"; and topk on the weights that no channel belongs to ({named})"
