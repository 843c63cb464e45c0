"""Terms and the removal of channels: which axes must stay whole for a set's sake, and what holds after a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateur.contracts import Term
from secateur.terms import views
from secateur.types import Level, Weights

if TYPE_CHECKING:
    from secateur.contracts import Constraint

Axis = tuple[str, int]  # parameter, axis of it
Shapes = Mapping[str, Sequence[int]]


def pinned(terms: Sequence[Term], shapes: Shapes, surgery: Mapping[str, Any]) -> set[Axis]:
    """The axes of this removal that some set does not survive; only what breaks it: rows, columns, or both.

    Args:
        shapes: of the parameters before the cut.
        surgery: the record of `graph.shrink`, as it is planned.
    """
    edits = {(e["tensor"], e["axis"]): e for e in surgery["edits"]}
    found: set[Axis] = set()
    for term in terms:
        own = {m.param for m in term.site.members}
        touched = {axis: e for axis, e in edits.items() if axis[0] in own}
        if touched and _cut(term, None, shapes, touched.values()) is None:
            alone = {axis for axis, e in touched.items() if _cut(term, None, shapes, [e]) is None}
            found |= alone or touched.keys()
    return found


def after_cut(term: Term, level: Level, shapes: Shapes, surgery: Mapping[str, Any]) -> tuple[Constraint, Level]:
    """The set and the level of a term on what a removal left of its site; `pinned` has let it pass."""
    found = _cut(term, level, shapes, surgery["edits"])
    assert found is not None, f"{term.site.name}: {term.constraint.name} was cut without its leave"
    return found


def tightened(term: Term, weights: Weights) -> Level:
    """The tightest level of a term that the weights are in: what is zero now stays zero and is priced so."""
    return term.constraint.tightest(views.matrix(term.site, term.constraint.view, weights), term.level)


def _cut(term: Term, level: Level, shapes: Shapes, edits: Any) -> tuple[Constraint, Level] | None:
    """What the set answers to these edits; None also where they leave no rectangle of its matrix."""
    import torch  # lazily, as everywhere in this room

    there = {}
    for member in term.site.members:
        mask = torch.ones(tuple(shapes[member.param]))
        for edit in edits:
            if edit["tensor"] == member.param:
                gone = sorted(set(range(edit["size"])) - set(edit["keep"]))
                mask.index_fill_(edit["axis"], torch.tensor(gone, dtype=torch.int64), 0.0)
        there[member.param] = mask
    kept = views.matrix(term.site, term.constraint.view, there)
    if bool(kept.all()):  # other sites were cut, this one was not: a set that bears no cut is not asked
        return term.constraint, level
    rows, cols = kept.any(1), kept.any(0)
    if term.site.op != "channels" and not torch.equal(kept != 0, rows[:, None] & cols):
        return None
    at = [mask.nonzero().flatten().tolist() for mask in (rows, cols)]
    return term.constraint.after_cut((int(kept.shape[0]), int(kept.shape[1])), at[0], at[1], level)
