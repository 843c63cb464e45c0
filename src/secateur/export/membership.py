"""Is the written network what was asked for? Counted in the ONNX file, on the shapes of the net before the cuts.

This shares nothing with the road that led there: no term that a cut rewrote, no trace. Initializers are read from the
file's bytes, the recorded cuts are undone by putting zeros where something was removed, and the terms are asked on
that, as they stood when their levels were fixed. Only what the file does not hold under its own name (gates of
recurrent cells, packed projections) is taken from the written tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.contracts import Constraint, Term
from secateur.errors import SecateurError
from secateur.export.stored import initializers
from secateur.recipe import build_constraint
from secateur.terms import views
from secateur.types import Level, Member, Site, Stage

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Asked:
    """Terms with their levels, and how many of the recorded cuts had been made when they were fixed.

    A term with a given level needs no entry in `levels`.
    """

    terms: tuple[Term, ...]
    levels: Mapping[str, Level]
    n_cuts: int = 0

    def level(self, term: Term) -> Level:
        """The level that was fixed for a term."""
        return self.levels.get(term.site.name, term.level)


def to_record(term: Term, level: Level, n_cuts: int) -> dict[str, Any]:
    """A term with all that is needed to ask it of the written file: the set as in a recipe, and where it acts."""
    site = term.site
    return {
        "site": site.name,
        "with": settings_of(term.constraint),
        "level": level,
        "given": term.given,
        "n_cuts": n_cuts,
        "place": {
            "op": site.op,
            "shape": list(site.shape),
            "groups": site.groups,
            "rows": list(site.rows),
            "members": [
                {"param": m.param, "axis": m.axis, "repeat": m.repeat, "index": None if m.index is None else [*m.index]}
                for m in site.members
            ],
        },
    }


def from_record(row: Mapping[str, Any]) -> Asked:
    """What `to_record` wrote. Whatever does not fit raises TypeError, ValueError, KeyError or an error of ours."""
    place = row["place"]
    members = tuple(
        Member(m["param"], m["axis"], m["repeat"], None if m["index"] is None else tuple(m["index"]))
        for m in place["members"]
    )
    site = Site(
        row["site"], place["op"], tuple(place["shape"]), members, groups=place["groups"], rows=tuple(place["rows"])
    )
    level = _level(row["level"])
    return Asked((Term(site, build_constraint(row["with"]), level, True),), {site.name: level}, row["n_cuts"])


def settings_of(constraint: Constraint) -> Any:
    """What `recipe.build_constraint` makes this set from."""
    parts = [part for part, _ in constraint.split(None)]
    if parts != [constraint]:
        return [settings_of(p) for p in parts]
    own = {f.name: getattr(constraint, f.name) for f in fields(constraint)}  # type: ignore[arg-type]
    return {"name": constraint.name, **{k: settings_of(v) if isinstance(v, Constraint) else v for k, v in own.items()}}


def unfitted(row: Mapping[str, Any], asked: Term) -> dict[str, Any]:
    """A record without what its set took from the dense net, where the recipe's own set names nothing of the kind."""
    try:
        found = from_record(row).terms[0].constraint
    except (TypeError, ValueError, KeyError, SecateurError):
        return dict(row)  # a stranger's, which is not as the recipe asks
    alike = asked.constraint == asked.constraint.fitted(None)
    return {**row, "with": settings_of(found.fitted(None) if alike else found)}


def _level(given: Any) -> Any:
    return tuple(_level(x) for x in given) if isinstance(given, list) else given


def outside(
    asked: Asked, onnx: bytes, surgery: Sequence[Mapping[str, Any]], state: Mapping[str, Array] | None = None
) -> list[str]:
    """The sites whose written weights are no members, each with what was asked; empty when all is well.

    Args:
        surgery: all cuts that led to the written net, in order.
        state: the written net's tensors by name, for weights that no initializer of the file is named after.
    """
    written, there = _uncut({**(state or {}), **initializers(onnx)}, surgery[asked.n_cuts :])
    lines = []
    for term in asked.terms:
        names = {m.param for m in term.site.members}
        if not names <= written.keys():
            continue  # nothing of it is in the file: removed whole, or not used
        for part, level in term.constraint.split(asked.level(term)):
            if level is None:
                continue
            matrix = views.matrix(term.site, part.view, written)
            if (
                part.stage == Stage.VALUES and matrix.numel()
            ):  # what was removed has no value; a weight that cannot matter is written as zero
                inside = views.matrix(term.site, part.view, there)
                matrix = matrix[inside.any(1)][:, inside.any(0)]
                if part.with_free_zero().contains(matrix, level):
                    continue
            if matrix.numel() and not part.contains(matrix, level):
                lines.append(f"{term.site.name}: {part.name} at level {level} over {', '.join(sorted(names))}")
    return lines


def _uncut(
    arrays: Mapping[str, Array], surgery: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The arrays on the shapes before the cuts, zeros for what was removed; and masks of what is still there.

    Layers that were split are one again, as the product of their factors.
    """
    import torch

    full, there = dict(arrays), {k: np.ones(v.shape, bool) for k, v in arrays.items()}
    for cut in reversed(surgery):
        for row in cut.get("factors", ()):
            whole = _multiplied(full, row["module"], len(row["ranks"]) + 1)
            full |= whole
            there |= {k: np.ones(v.shape, bool) for k, v in whole.items()}
        for edit in reversed(cut["edits"]):
            name, axis = edit["tensor"], edit["axis"]
            if name not in full:
                continue
            for store in (full, there):
                small = store[name]
                shape = [*small.shape]
                shape[axis] = edit["size"]
                large = np.zeros(shape, small.dtype)
                np.moveaxis(large, axis, 0)[edit["keep"]] = np.moveaxis(small, axis, 0)
                store[name] = large
    return (
        {k: torch.from_numpy(np.array(v)) for k, v in full.items()},
        {k: torch.from_numpy(np.array(v)) for k, v in there.items()},
    )


def _multiplied(arrays: Mapping[str, Array], module: str, n: int) -> dict[str, Array]:
    """Weight and bias of a layer that was split into `n`, by the names before; its product in double."""
    factors = [arrays.get(f"{module}.{i}.weight") for i in range(n)]
    found = {}
    if all(f is not None for f in factors):
        first, *rest = (f for f in factors if f is not None)
        product = first.reshape(len(first), -1).astype(np.float64)
        for factor in rest:
            product = factor.reshape(len(factor), -1).astype(np.float64) @ product
        found[f"{module}.weight"] = product.reshape(len(product), *first.shape[1:])
    if (bias := arrays.get(f"{module}.{n - 1}.bias")) is not None:
        found[f"{module}.bias"] = bias
    return found
