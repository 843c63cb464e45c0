"""Cut what no longer matters: fold constants into biases, remove channels physically, keep a plain module.

Nothing is assumed to be right: the smaller network is run beside the masked one in double precision, and channels
whose removal the code does not bear (sizes written into the forward pass) are given back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import UnsupportedError
from secateur.graph import literals
from secateur.graph.copying import copied
from secateur.graph.flow import Flow
from secateur.graph.ops import rule
from secateur.graph.ops._operator import argument
from secateur.graph.ops.convolution import Convolution
from secateur.graph.ops.linear import Linear
from secateur.graph.program import owner
from secateur.graph.surgery import Surgery, load, sibling
from secateur.graph.tracing import Traced
from secateur.graph.trial import Folded, Trial, made
from secateur.types import Site, Weights

Pinned = Callable[[Surgery], Collection[tuple[str, int]]]
Proof = Literal["always", "of changes", "of doubts"]


def shrink(
    model: nn.Module,
    traced: Traced,
    weights: Weights | None = None,
    pinned: Pinned | None = None,
    proof: Proof = "always",
) -> tuple[nn.Module, Surgery]:
    """The smaller network that computes what `model` with `weights` computes, in eval mode.

    Weights without effect become zero; constant units are folded into the biases of their readers (made where a
    layer has none), exactly up to one rounding; units that are constant or reach no output are removed from every
    tensor they sit in, coupled ones only when all agree. A constant that zero padding cuts off at the border cannot
    be folded exactly and stays. Every layer keeps at least one channel.

    Args:
        model: of the class that was traced; not changed.
        weights: parameter name -> tensor; default: the model's own.
        pinned: planned surgery -> the (tensor, axis) pairs of it whose channels must stay after all.
        proof: `of changes`: a network that stays as it is is not run; `of doubts`: nor one whose removals touch no
            size that is written into the code. A thumbnail tells both. For prices: a proof takes 6 s of a ResNet-50.
    Returns:
        A plain module of the same classes in the model's modes, and the surgery: a JSON-able record for
        `apply_surgery`.
    """
    masked = copied(model)
    load(masked, weights or {})
    if proof != "always":
        found = _believed(masked, traced.thumbnail or traced, pinned, proof == "of doubts")
        if found is not None:
            return found
    plain, folded, removable = _looked_at(masked, traced, pinned)
    trial = Trial(masked, traced.program)
    best = _best(trial, traced, folded, removable, pinned) or _attempt(trial, traced, plain, set(), pinned)
    if best is None:
        raise UnsupportedError(
            f"{type(model).__name__}: a copy with the same weights answers differently; its forward pass keeps state "
            "or draws random numbers in eval mode, so nothing can be proved about a smaller one"
        )
    return best


def stays(model: nn.Module, traced: Traced, site: Site) -> str:
    """Why the code does not bear the removal of a group's last row, in words; empty where it does. Tried, as ever."""
    dead = site.shape[0] - 1
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    for m in site.members:
        index = range(weights[m.param].shape[m.axis]) if m.index is None else m.index
        at = torch.tensor(list(index)[dead * m.repeat : (dead + 1) * m.repeat])
        weights[m.param].index_fill_(m.axis, at, 0.0)
    for name, mask in traced.kept(weights).items():
        weights[name] *= mask
    masked = copied(model)
    load(masked, weights)
    _, folded, removable = _looked_at(masked, traced, None)
    first = site.members[0]
    row = dead * first.repeat if first.index is None else first.index[dead * first.repeat]
    own = int(traced.coupling.axes[first.param, first.axis][row])
    if own not in removable:
        return "what reads them needs them, zero or not"
    trial = Trial(masked, traced.program)
    found = _attempt(trial, traced, folded, {own}, None)
    return trial.whys[-1] if found is None else ""  # of the guess that got farthest


def _looked_at(masked: nn.Module, traced: Traced, pinned: Pinned | None) -> tuple[Folded, Folded, set[int]]:
    """The weights as they are, and folded; and the classes of channels that may go."""
    current = {n: p.detach() for n, p in masked.named_parameters()} | dict(masked.named_buffers())
    flow = traced.flow(current)
    folded = _fold(flow)
    plain = Folded({n: t for n, t in current.items() if n in traced.program.shapes})
    return plain, folded, _unpinned(traced, folded, _removable(flow, traced), pinned)


def _believed(
    masked: nn.Module, traced: Traced, pinned: Pinned | None, removals: bool
) -> tuple[nn.Module, Surgery] | None:
    """The answer where nothing speaks against it, without a run: nothing changes, or `removals` that touch no literal
    size. `masked` is used up then."""
    plain, folded, removable = _looked_at(masked, traced, pinned)
    same = not folded.made and all(
        torch.equal(folded.values[n], t.to(folded.values[n])) for n, t in plain.values.items()
    )
    if not removable and same:
        return masked, _surgery(traced, folded, set())
    if not removals or any(removable & touched for touched in traced.coupling.suspects.values()):
        return None
    surgery = _surgery(traced, folded, _keep_one(traced, removable))  # which pins nothing: `_unpinned` has asked
    return made(masked, folded, surgery), surgery


def _best(
    trial: Trial, traced: Traced, folded: Folded, removable: set[int], pinned: Pinned | None
) -> tuple[nn.Module, Surgery] | None:
    """The largest removal that reproduces the masked model.

    All of it, if it does. Else what no literal size in the code touches, and then, part by part, the rest: a part
    is the channels that the same places of the code make doubtful.
    """
    found = _attempt(trial, traced, folded, removable, pinned)
    if found is not None:
        return found
    parts: dict[frozenset[str], set[int]] = {}
    for c in sorted(removable):
        touched = frozenset(k for k, v in traced.coupling.suspects.items() if c in v)
        parts.setdefault(touched, set()).add(c)
    chosen: set[int] = set()
    found = _attempt(trial, traced, folded, chosen, pinned)
    if found is None:
        return None
    for _, part in sorted(parts.items(), key=lambda p: (len(p[0]), -len(p[1]), sorted(p[0]))):
        larger = _attempt(trial, traced, folded, chosen | part, pinned)
        if larger is not None:
            found, chosen = larger, chosen | part
    return found


def _attempt(
    trial: Trial, traced: Traced, folded: Folded, removed: set[int], pinned: Pinned | None
) -> tuple[nn.Module, Surgery] | None:
    removed = _keep_one(traced, removed)
    surgery = _surgery(traced, folded, removed)
    if pinned is not None and pinned(surgery):  # what was given back has shifted what a set counts by
        return None
    small = trial.proven(folded, surgery)
    if small is not None or not removed:
        return None if small is None else (small, surgery)
    for rows in literals.rewrites(trial.masked, traced.program, traced.coupling, removed):
        told = {**surgery, "version": 3, **rows}
        small = trial.proven(folded, told)
        if small is not None:
            return small, told
    return None


def _fold(flow: Flow) -> Folded:
    """Zeros for what has no effect; constants that readers can do without moved into their biases."""
    program = flow.program
    sites = {name for n in program.calls for name in rule(n, program).sites(n, program)}
    values = {}
    for name in program.shapes:
        value = flow.weights[name]
        if name in sites and not bool(flow.effective[name].all()):
            value = value * flow.effective[name]
        values[name] = value
    folded = Folded(values)
    for n, mask in flow.folds.items():
        if not isinstance(rule(n, program), Convolution | Linear) or not bool(mask.any()):
            continue
        given = torch.where(mask, flow.values[n.args[0]], 0.0).double()
        if not bool(given.any()):
            continue
        out = _contribution(n, given, flow.weights[program.params[n.args[1].name]].double())
        axis = out.dim() - 1 if isinstance(rule(n, program), Linear) else 1
        shift = out.movedim(axis, 0).reshape(out.shape[axis], -1)[:, 0]
        shift = shift * flow.need[n].movedim(axis, 0).reshape(out.shape[axis], -1).any(dim=1)
        bias = program.params.get(getattr(argument(n, "bias"), "name", ""))
        if bias:
            values[bias] = values[bias] + shift
        elif bool(shift.any()):
            prefix = owner(n)
            folded.made[f"{prefix}.bias" if prefix else "bias"] = shift
    return folded


def _contribution(n: Any, given: Tensor, weight: Tensor) -> Tensor:
    if str(n.target).startswith("aten.linear"):
        return nn.functional.linear(given, weight)
    rest = {k: argument(n, k) for k in ("stride", "padding", "dilation", "groups")}
    out: Tensor = n.target(given, weight, None, **rest)
    return out


def _removable(flow: Flow, traced: Traced) -> set[int]:
    """Classes none of whose elements is needed anywhere."""
    coupling = traced.coupling
    # A flag a class: to sort the classes of all elements takes half a second for a graph of 2,700 nodes.
    needed = torch.zeros(1 + max(coupling.classes, default=0), dtype=torch.bool)
    for n, classes in coupling.elements.items():
        mask = flow.need.get(n)
        if isinstance(classes, Tensor) and isinstance(mask, Tensor):
            seen = coupling.seen(n) if bool(mask.all()) else classes[mask.cpu()]
            needed[seen[(seen >= 0) & (seen < len(needed))]] = True
    for name, rows in flow.inside.items():
        needed[torch.from_numpy(coupling.axes[name, 0])[rows.cpu()]] = True
    return set(coupling.classes).difference(needed.nonzero().flatten().tolist())


def _unpinned(traced: Traced, folded: Folded, removable: set[int], pinned: Pinned | None) -> set[int]:
    """What may go of pinned axes: whole runs of 2, 4, 8 ... channels, as blocks bear it, or none; till none is pinned.

    Fewer removals may pin less, or other axes.
    """
    runs: dict[tuple[str, int], int] = {}
    while pinned is not None and removable:
        axes = pinned(_surgery(traced, folded, _keep_one(traced, removable)))
        if not axes:
            break
        for axis in axes:
            runs[axis] = 2 * runs.get(axis, 1)
            removable = removable - _broken(traced.coupling.axes[axis].tolist(), removable, runs[axis])
    return removable


def _broken(classes: list[int], removable: set[int], n: int) -> set[int]:
    """Channels of an axis whose run of `n` does not go whole; all of them where there is but one."""
    if n >= len(classes):
        return {*classes}
    runs = (classes[i : i + n] for i in range(0, len(classes), n))
    return {c for run in runs if not removable.issuperset(run) for c in run}


def _keep_one(traced: Traced, removed: set[int]) -> set[int]:
    """No axis may become empty: its first channel stays then."""
    removed, axes = set(removed), traced.coupling.axes
    changed = bool(removed)
    while changed:
        changed = False
        for classes in axes.values():
            present = [int(c) for c in classes.tolist()]
            if present and all(c in removed for c in present):
                removed.discard(present[0])
                changed = True
    return removed


def _surgery(traced: Traced, folded: Folded, removed: set[int]) -> Surgery:
    """The record: ordered edits, made biases, paddings."""
    edits: list[dict[str, Any]] = []
    going = np.array(sorted(removed), np.int64)
    for (name, axis), classes in traced.coupling.axes.items() if removed else ():
        gone = np.isin(classes, going)
        if gone.any():
            keep = np.flatnonzero(~gone).tolist()
            edits.append({"tensor": name, "axis": axis, "size": len(classes), "keep": keep})
    pads = []
    for (module, side), classes in traced.coupling.pads.items():
        less = sum(1 for c in classes.tolist() if c in removed)
        if less:
            pads.append({"module": module, "side": side, "less": less})
    sizes = []
    for (module, attribute), classes in traced.coupling.sizes.items():
        less = sum(1 for c in classes.tolist() if c in removed)
        if less:
            sizes.append({"module": module, "attribute": attribute, "less": less})
    rows = {e["tensor"]: e["keep"] for e in edits if e["axis"] == 0}
    biases = {name: rows.get(sibling(name), list(range(len(value)))) for name, value in folded.made.items()}
    found = {"version": 1, "edits": edits, "biases": {k: len(v) for k, v in biases.items()}, "pads": pads}
    return {**found, "sizes": sizes} if sizes else found
