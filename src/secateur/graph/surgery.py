"""The record of a removal (`surgery.json`): replayed on a freshly built model, and followed by the sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import FormatError, UnsupportedError
from secateur.graph import activations, literals
from secateur.graph.copying import copied
from secateur.graph.factors import split
from secateur.types import Member, Site, Weights

Surgery = dict[str, Any]
_COUNTED = {"num_groups": nn.GroupNorm, "num_features": nn.modules.instancenorm._InstanceNorm}
_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)  # the zero pads are their subclasses


def apply_surgery(model: nn.Module, surgery: Mapping[str, Any]) -> nn.Module:
    """A copy of a freshly built model with the tensor shapes that the surgery's weights need; values are not set.

    Raises:
        FormatError: the record does not fit this model.
    """
    out = copied(model)
    try:
        if "grids" in surgery:
            return activations.replay(model, surgery)
        operate(out, surgery)
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


def load(model: nn.Module, weights: Weights) -> None:
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, value in weights.items():
            if name not in tensors:
                raise UnsupportedError(f"weights: {name!r} is no parameter or buffer of the model")
            tensors[name].copy_(value)


def operate(model: nn.Module, surgery: Mapping[str, Any]) -> None:
    """Replay a record on a model, in place."""
    if surgery.get("version") not in (1, 2, 3):
        raise FormatError(f"surgery: version {surgery.get('version')!r} is not known; this release reads 1 to 3")
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
    for size in surgery.get("sizes", ()):
        _count_down(modules, size)
    for module in modules.values():
        _refresh(module)
    literals.replay(model, surgery)
    for row in surgery.get("factors", ()):
        split(model, row)


def _count_down(modules: Mapping[str, nn.Module], size: Mapping[str, Any]) -> None:
    """A number that counts channels, or groups of them, in a module that no tensor's shape tells it."""
    name, attribute, less = str(size["module"]), str(size["attribute"]), int(size["less"])
    module = modules.get(name)
    if module is None or not isinstance(module, _COUNTED.get(attribute, ())):
        raise FormatError(f"surgery: no layer {name!r} whose {attribute} could change")
    now = int(getattr(module, attribute))
    if not 0 <= less < now:
        raise FormatError(f"surgery: {name!r} has {attribute} {now}, {less} less is not possible")
    setattr(module, attribute, now - less)


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
    elif isinstance(module, nn.modules.conv._ConvNd):
        _refresh_convolution(module)
    elif isinstance(module, nn.RNNBase):
        if not module.proj_size:
            module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
        module.input_size = module.get_parameter("weight_ih_l0").shape[1]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        kept = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        if kept is not None:
            module.num_features = kept.shape[0]
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


def _refresh_convolution(module: nn.modules.conv._ConvNd) -> None:
    """Depthwise layers have a group for each input; others keep their groups, of fewer channels."""
    depthwise = module.groups == module.in_channels and module.groups > 1
    if module.transposed:
        module.in_channels = module.weight.shape[0]
        module.groups = module.in_channels if depthwise else module.groups
        module.out_channels = module.weight.shape[1] * module.groups
        return
    each = module.out_channels // module.groups
    module.out_channels, per_group = module.weight.shape[:2]
    module.groups = module.out_channels // each if depthwise else module.groups
    module.in_channels = per_group * module.groups


def sibling(bias: str) -> str:
    """The weight of the layer that a bias belongs to."""
    return bias.removesuffix("bias") + "weight"
