"""Layers in two: a linear layer or a convolution whose weight is a product becomes a chain of thin layers.

    W = F1 F0:   x -> F0 x -> F1 (F0 x) + b

A convolution [o, c, kh, kw] of rank r is one to r channels with its kernel, stride and padding, then one of 1x1. In the
module an `nn.Sequential` takes the layer's place: `fc1.weight` becomes `fc1.0.weight`, which meets the input, and
`fc1.1.weight`; `fc1.bias` becomes `fc1.1.bias`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from secateur.errors import FormatError
from secateur.graph.calling import evaluating
from secateur.graph.copying import copied
from secateur.graph.program import Program, owner
from secateur.types import Chain

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def factored(
    model: nn.Module, surgery: Mapping[str, Any], chains: Mapping[str, Chain]
) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of `model` with the layers of some weights split, and the surgery that led here with that added.

    Args:
        surgery: the record of `graph.shrink` that made `model`; not changed.
        chains: parameter name -> factors of its matrix [outputs, everything else].
    """
    out, rows = copied(model), []
    for name, chain in chains.items():
        prefix = name.rpartition(".")[0]
        inputs_first = chain.factors[::-1]
        rows.append({"module": prefix, "ranks": [f.shape[0] for f in inputs_first[:-1]]})
        bias = out.get_submodule(prefix).bias
        split(out, rows[-1])
        with torch.no_grad():
            for i, factor in enumerate(inputs_first):
                weight = out.get_parameter(f"{prefix}.{i}.weight")
                weight.copy_(factor.reshape(weight.shape))
            if bias is not None:
                out.get_parameter(f"{prefix}.{len(inputs_first) - 1}.bias").copy_(bias)  # type: ignore[arg-type]
    return out, {**surgery, "version": max(2, surgery["version"]), "factors": rows}


def split(model: nn.Module, row: Mapping[str, Any]) -> None:
    """Put a chain of layers in the place of one, in every module that holds it, in place; values are not set.

    Raises:
        FormatError: there is no such layer, or it cannot be split.
    """
    name, ranks = str(row["module"]), [int(r) for r in row["ranks"]]
    layer = dict(model.named_modules()).get(name)
    why = "there is no such layer" if layer is None else _cannot(layer)
    if layer is None or why:
        raise FormatError(f"surgery: {name!r} cannot become {len(ranks) + 1} layers: {why}")
    n, most = layer.weight.numel(), layer.weight.shape[0]  # type: ignore[operator, union-attr]
    if not ranks or not all(1 <= r <= min(most, n // most) for r in ranks):
        raise FormatError(f"surgery: {name!r} {list(layer.weight.shape)} cannot become layers of ranks {ranks}")  # type: ignore[arg-type]
    chain = nn.Sequential(*_chain(layer, ranks)).train(layer.training)
    for module in list(model.modules()):
        for key, child in list(module._modules.items()):
            if child is layer:
                module._modules[key] = chain


def names_of(param: str, names: Collection[str]) -> tuple[str, ...]:
    """Under which names a network with split layers holds a parameter: its own, or those of its factors.

    Args:
        names: of the network's parameters.
    """
    prefix, _, last = param.rpartition(".")
    if param in names or f"{prefix}.0.weight" not in names:
        return (param,) if param in names else ()
    factors: list[str] = []
    while (factor := f"{prefix}.{len(factors)}.weight") in names:
        factors.append(factor)
    bias = f"{prefix}.{len(factors) - 1}.bias"
    return tuple(factors) if last == "weight" else (bias,) if last == "bias" and bias in names else ()


def whole(model: nn.Module, program: Program, params: Iterable[str]) -> dict[str, str]:
    """Which of these weights' layers cannot be split, and why in words; tried with rank 1 on the example.

    Args:
        program: of this model, which is not changed.
    """
    found: dict[str, str] = {}
    for name in params:
        prefix, _, last = name.rpartition(".")
        layer = dict(model.named_modules(remove_duplicate=False)).get(prefix)
        calls = [n for n in program.calls if name in {program.params.get(a.name) for a in n.all_input_nodes}]
        if layer is None or last != "weight" or any(owner(n) != prefix for n in calls):
            found[name] = "the code reads it itself, not through a layer"
        elif why := _cannot(layer):
            found[name] = why
        elif sum(p is layer.weight for m in model.modules() for p in m._parameters.values()) > 1:
            found[name] = "other layers share it"
        elif why := _fails(model, program, prefix):
            found[name] = f"the code does not run with two layers in its place ({why})"
    return found


def _cannot(layer: nn.Module) -> str | None:
    if type(layer) not in (nn.Linear, *_CONVOLUTIONS):
        return f"it is a {type(layer).__name__}, no plain nn.Linear or nn.Conv"
    if getattr(layer, "groups", 1) != 1:
        return f"it has {layer.groups} groups"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has forward hooks"
    return None


def _fails(model: nn.Module, program: Program, prefix: str) -> str | None:
    trial = copied(model)
    split(trial, {"module": prefix, "ranks": [1]})
    args, kwargs = program.rebuild([program.example[n] for n in program.inputs])
    try:
        with evaluating(trial):
            trial(*args, **kwargs)
    except Exception as e:  # whatever the user's code throws when an attribute of its layer is gone
        return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
    return None


def _chain(layer: Any, ranks: Sequence[int]) -> list[nn.Module]:
    """The thin layers; weights of the layer's dtype and device, the last with its bias."""
    weight, last = layer.weight, len(ranks)
    common = {"device": weight.device, "dtype": weight.dtype}
    made: list[nn.Module] = []
    for i in range(last + 1):
        bias = i == last and layer.bias is not None
        if isinstance(layer, nn.Linear):
            ends = (layer.in_features, *ranks, layer.out_features)
            made.append(nn.Linear(ends[i], ends[i + 1], bias, **common))
            continue
        ends = (layer.in_channels, *ranks, layer.out_channels)
        moves = ("kernel_size", "stride", "padding", "dilation", "padding_mode") if i == 0 else ()
        options = {"kernel_size": 1, **{k: getattr(layer, k) for k in moves}}
        made.append(type(layer)(ends[i], ends[i + 1], bias=bias, **options, **common))
    for module in made:
        for p in module.parameters():
            p.requires_grad_(weight.requires_grad)
    return made
