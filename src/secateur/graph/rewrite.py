"""Cut what no longer matters: fold constants into biases, remove channels physically, keep a plain module.

Nothing is assumed to be right: the smaller network is run beside the masked one in double precision, and channels
whose removal the code does not bear (sizes written into the forward pass) are given back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import FormatError, UnsupportedError
from secateur.graph import activations
from secateur.graph.calling import evaluating, tensors_of
from secateur.graph.copying import copied
from secateur.graph.doubled import in_double
from secateur.graph.factors import split
from secateur.graph.flow import Flow
from secateur.graph.ops import rule
from secateur.graph.ops._operator import Labels, argument
from secateur.graph.ops.convolution import Convolution
from secateur.graph.ops.linear import Linear
from secateur.graph.program import Program, owner
from secateur.graph.tracing import Traced
from secateur.types import Member, Site, Weights

Surgery = dict[str, Any]
Pinned = Callable[[Surgery], Collection[tuple[str, int]]]
_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)  # the zero pads are their subclasses


@dataclass
class _Folded:
    """Weights after folding, in double: what every parameter becomes before anything is cut."""

    values: dict[str, Tensor]
    made: dict[str, Tensor] = field(default_factory=dict)  # biases that layers without one need now


def shrink(
    model: nn.Module, traced: Traced, weights: Weights | None = None, pinned: Pinned | None = None
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
    Returns:
        A plain module of the same classes in the model's modes, and the surgery: a JSON-able record for
        `apply_surgery`.
    """
    masked = copied(model)
    _load(masked, weights or {})
    current = {n: p.detach() for n, p in masked.named_parameters()} | dict(masked.named_buffers())
    flow = traced.flow(current)
    trial = _Trial(masked, traced.program, pinned)
    folded = _fold(flow)
    plain = _Folded({n: t for n, t in current.items() if n in traced.program.shapes})
    removable = _unpinned(traced, folded, _removable(flow, traced), pinned)
    best = trial.best(traced, folded, removable) or trial.attempt(traced, plain, set())
    if best is None:
        raise UnsupportedError(
            f"{type(model).__name__}: a copy with the same weights answers differently; its forward pass keeps state "
            "or draws random numbers in eval mode, so nothing can be proved about a smaller one"
        )
    return best


def apply_surgery(model: nn.Module, surgery: Mapping[str, Any]) -> nn.Module:
    """A copy of a freshly built model with the tensor shapes that the surgery's weights need; values are not set.

    Raises:
        FormatError: the record does not fit this model.
    """
    out = copied(model)
    try:
        if "grids" in surgery:
            return activations.replay(model, surgery)
        _operate(out, surgery)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:  # the record comes from a file
        raise FormatError(f"surgery: malformed record ({type(e).__name__}: {e})") from e
    return out


def after_cut(site: Site, surgery: Mapping[str, Any]) -> Site | None:
    """A `channels` site on the net that a surgery made: the rows that are left, where they sit now; None = no row."""
    kept = {(e["tensor"], e["axis"]): e["keep"] for e in surgery["edits"]}
    sizes = {(e["tensor"], e["axis"]): e["size"] for e in surgery["edits"]}
    rows, members = site.shape[0], []
    alive: set[int] = set(range(rows))
    for m in (*site.members, *site.removes):
        keep = kept.get((m.param, m.axis))
        if keep is not None:
            there = set(keep)
            index = range(sizes[m.param, m.axis]) if m.index is None else m.index
            alive -= {i // m.repeat for i, at in enumerate(index) if at not in there}
    for m in (*site.members, *site.removes):
        keep = kept.get((m.param, m.axis))
        if keep is None:
            members.append(m)
            continue
        at_now = {old: new for new, old in enumerate(keep)}
        order = list(range(sizes[m.param, m.axis]) if m.index is None else m.index)
        mine = [at_now[order[r * m.repeat + i]] for r in sorted(alive) for i in range(m.repeat)]
        members.append(Member(m.param, m.axis, m.repeat, None if mine == list(range(len(keep))) else tuple(mine)))
    n = len(site.members)
    if not alive:
        return None
    return replace(site, shape=(len(alive),), members=tuple(members[:n]), removes=tuple(members[n:]))


class _Trial:
    """Builds candidates and compares them with the masked model in double (or as the code allows)."""

    def __init__(self, masked: nn.Module, program: Program, pinned: Pinned | None) -> None:
        self.masked, self.program, self.pinned = masked, program, pinned
        self.dtype: torch.dtype | None = torch.float64
        self.inputs: list[dict[str, Tensor]] = []
        try:
            self.wanted = self._settle()
        except (RuntimeError, TypeError, ValueError):
            self.dtype = None  # the code insists on its own types
            self.wanted = self._settle()
        self.trained = self._in_training(_as(copied(masked), self.dtype))

    def _settle(self) -> list[Tensor]:
        """Choose the inputs to compare on: the example's batch, and batches of 1 and 3 where the code takes them."""
        model, self.inputs, wanted = _as(self.masked, self.dtype), [], []
        for batch in (None, 1, 3) if self.program.batched else (None,):
            inputs = self._example(batch)
            try:
                wanted += self._answer(model, inputs)
            except Exception:
                if batch is None:
                    raise
                continue
            self.inputs.append(inputs)
        return wanted

    def best(self, traced: Traced, folded: _Folded, removable: set[int]) -> tuple[nn.Module, Surgery] | None:
        """The largest removal that reproduces the masked model.

        All of it, if it does. Else what no literal size in the code touches, and then, part by part, the rest: a part
        is the channels that the same places of the code make doubtful.
        """
        found = self.attempt(traced, folded, removable)
        if found is not None:
            return found
        parts: dict[frozenset[str], set[int]] = {}
        for c in sorted(removable):
            touched = frozenset(k for k, v in traced.coupling.suspects.items() if c in v)
            parts.setdefault(touched, set()).add(c)
        chosen: set[int] = set()
        found = self.attempt(traced, folded, chosen)
        if found is None:
            return None
        for _, part in sorted(parts.items(), key=lambda p: (len(p[0]), -len(p[1]), sorted(p[0]))):
            larger = self.attempt(traced, folded, chosen | part)
            if larger is not None:
                found, chosen = larger, chosen | part
        return found

    def attempt(self, traced: Traced, folded: _Folded, removed: set[int]) -> tuple[nn.Module, Surgery] | None:
        """The finished module and its record, or None when it fails to reproduce the masked one."""
        surgery = _surgery(traced, folded, _keep_one(traced, removed))
        if self.pinned is not None and self.pinned(surgery):  # what was given back has shifted what a set counts by
            return None
        exact = self._make(folded, surgery, self.dtype)
        try:
            got = [t for inputs in self.inputs for t in self._answer(exact, inputs)]
        except Exception:  # whatever the user's code throws at sizes it does not expect
            return None
        if len(got) != len(self.wanted):
            return None
        for y, w in zip(got, self.wanted, strict=True):
            # Only the order of sums differs: in double far below 1e-9 of the largest output.
            finite = w[w.isfinite()].abs()
            bound = (1e-9 if self.dtype is not None else 1e-4) * max(1e-3, float(finite.max()) if len(finite) else 0.0)
            if y.shape != w.shape or not torch.allclose(y, w, rtol=0.0, atol=bound, equal_nan=True):
                return None
        if self.trained is not None and self._in_training(exact) != self.trained:
            return None  # a part that runs in training mode only reads channels that are gone
        return self._make(folded, surgery, None), surgery

    def _in_training(self, model: nn.Module) -> list[torch.Size] | None:
        """The shapes that `model` answers in training mode, None when it does not run; `model` is used up."""
        inputs = self._example(3)
        args, kwargs = self.program.rebuild([inputs.get(n) for n in self.program.inputs])
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.no_grad(),
                in_double() if self.dtype is not None else contextlib.nullcontext(),
            ):
                answer = model.train()(*args, **kwargs)
        except Exception:  # whatever the user's code throws at sizes it does not expect
            return None
        return [t.shape for t in tensors_of(answer)]

    def _make(self, folded: _Folded, surgery: Surgery, dtype: torch.dtype | None) -> nn.Module:
        small = _as(copied(self.masked), dtype)
        _load(small, folded.values)
        _operate(small, surgery)
        rows = {e["tensor"]: e["keep"] for e in surgery["edits"] if e["axis"] == 0}
        _load(small, {k: v[rows[_sibling(k)]] if _sibling(k) in rows else v for k, v in folded.made.items()})
        return small

    def _answer(self, model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
        args, kwargs = self.program.rebuild([inputs.get(n) for n in self.program.inputs])
        with evaluating(model), in_double() if self.dtype is not None else contextlib.nullcontext():
            answer = model(*args, **kwargs)
        return [t.double() for t in tensors_of(answer)]

    def _example(self, batch: int | None) -> dict[str, Tensor]:
        """The example inputs, or noisy ones like them with another number of rows."""
        generator = torch.Generator().manual_seed(batch or 0)
        made = {}
        for name, t in self.program.example.items():
            rows = t
            if batch is not None and self.program.batched and t.dim():
                rows = t[torch.arange(batch, device=t.device) % t.shape[0]]
            if t.is_floating_point():
                noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(t.device)
                rows = (rows + noise * (1 + t.double().std(correction=0))).to(self.dtype or t.dtype)
            made[name] = rows
        return made


def _as(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return model if dtype is None else copied(model).to(dtype)


def _slots(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """First name of every parameter and buffer -> all places it sits in (tied ones have several)."""
    first: dict[int, str] = {}
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for attr, tensor in store.items():
                if tensor is not None:
                    name = first.setdefault(id(tensor), f"{prefix}.{attr}" if prefix else attr)
                    found.setdefault(name, []).append((module, attr))
    return found


def _load(model: nn.Module, weights: Weights) -> None:
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, value in weights.items():
            if name not in tensors:
                raise UnsupportedError(f"weights: {name!r} is no parameter or buffer of the model")
            tensors[name].copy_(value)


def _fold(flow: Flow) -> _Folded:
    """Zeros for what has no effect; constants that readers can do without moved into their biases."""
    program = flow.program
    sites = {name for n in program.calls for name in rule(n, program).sites(n, program)}
    values = {}
    for name in program.shapes:
        value = flow.weights[name].double() if flow.weights[name].is_floating_point() else flow.weights[name]
        values[name] = value * flow.effective[name] if name in sites else value
    folded = _Folded(values)
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
    known = {int(c) for axis in coupling.axes.values() for c in axis.tolist() if c > Labels.PIN}
    needed: set[int] = set()
    for n, classes in coupling.elements.items():
        mask = flow.need.get(n)
        if isinstance(classes, Tensor) and isinstance(mask, Tensor) and bool(mask.any()):
            needed |= set(classes[mask.cpu()].unique().tolist())
    return known - needed


def _unpinned(traced: Traced, folded: _Folded, removable: set[int], pinned: Pinned | None) -> set[int]:
    """What may go when the channels of pinned axes stay; fewer removals may pin less, or other axes: till none is."""
    while pinned is not None and removable:
        axes = pinned(_surgery(traced, folded, _keep_one(traced, removable)))
        held = {int(c) for axis in axes for c in traced.coupling.axes[axis].tolist()} & removable
        if not held:
            break
        removable = removable - held
    return removable


def _keep_one(traced: Traced, removed: set[int]) -> set[int]:
    """No axis may become empty: its first channel stays then."""
    removed, axes = set(removed), traced.coupling.axes
    changed = True
    while changed:
        changed = False
        for classes in axes.values():
            present = [int(c) for c in classes.tolist()]
            if present and all(c in removed for c in present):
                removed.discard(present[0])
                changed = True
    return removed


def _surgery(traced: Traced, folded: _Folded, removed: set[int]) -> Surgery:
    """The record: ordered edits, made biases, paddings."""
    edits: list[dict[str, Any]] = []
    for (name, axis), classes in traced.coupling.axes.items():
        keep = [i for i, c in enumerate(classes.tolist()) if c not in removed]
        if len(keep) < len(classes):
            edits.append({"tensor": name, "axis": axis, "size": len(classes), "keep": keep})
    pads = []
    for (module, side), classes in traced.coupling.pads.items():
        gone = sum(1 for c in classes.tolist() if c in removed)
        if gone:
            pads.append({"module": module, "side": side, "less": gone})
    rows = {e["tensor"]: e["keep"] for e in edits if e["axis"] == 0}
    biases = {name: rows.get(_sibling(name), list(range(len(value)))) for name, value in folded.made.items()}
    return {"version": 1, "edits": edits, "biases": {k: len(v) for k, v in biases.items()}, "pads": pads}


def _sibling(bias: str) -> str:
    return bias.removesuffix("bias") + "weight"


def _operate(model: nn.Module, surgery: Mapping[str, Any]) -> None:
    """Replay a record on a model, in place."""
    if surgery.get("version") not in (1, 2):
        raise FormatError(f"surgery: version {surgery.get('version')!r} is not known; this release reads 1 and 2")
    slots, modules = _slots(model), dict(model.named_modules())
    for edit in surgery.get("edits", ()):
        _cut(slots, edit)
    for name, size in surgery.get("biases", {}).items():
        prefix, _, attr = str(name).rpartition(".")
        module = modules.get(prefix)
        if attr != "bias" or not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            raise FormatError(f"surgery: no layer for the bias {name!r}")
        module.bias = nn.Parameter(module.weight.new_zeros(int(size)))
    for pad in surgery.get("pads", ()):
        module = modules.get(pad["module"])
        if not isinstance(module, _PADS):
            raise FormatError(f"surgery: no padding layer {pad['module']!r}")
        padding, side, less = list(module.padding), int(pad["side"]), int(pad["less"])
        if not 0 <= side < len(padding) or not 0 <= less <= padding[side]:
            raise FormatError(
                f"surgery: padding layer {pad['module']!r} {padding} has no {less} to give on side {side}"
            )
        padding[side] -= less
        module.padding = tuple(padding)  # type: ignore[assignment]
    for module in modules.values():
        _refresh(module)
    for row in surgery.get("factors", ()):
        split(model, row)


def _cut(slots: dict[str, list[tuple[nn.Module, str]]], edit: Mapping[str, Any]) -> None:
    name, axis, size, keep = str(edit["tensor"]), int(edit["axis"]), int(edit["size"]), list(edit["keep"])
    if name not in slots:
        raise FormatError(f"surgery: the model has no tensor {name!r}")
    module, attr = slots[name][0]
    old: Tensor = getattr(module, attr)
    fits = 0 <= axis < old.dim() and old.shape[axis] == size
    if not fits or not keep or any(not isinstance(i, int) or not 0 <= i < size for i in keep):
        raise FormatError(f"surgery: {name} {list(old.shape)} does not fit the edit of axis {axis}, size {size}")
    new = old.detach().index_select(axis, torch.tensor(keep, device=old.device))
    fresh = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    for place, key in slots[name]:
        setattr(place, key, fresh)


def _refresh(module: nn.Module) -> None:
    """Size attributes follow the tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
        out, per_group = module.weight.shape[:2]
        if module.groups == module.in_channels and per_group == 1 and module.groups > 1:
            module.groups = out
        module.out_channels, module.in_channels = out, per_group * module.groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        kept = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        if kept is not None:
            module.num_features = kept.shape[0]
