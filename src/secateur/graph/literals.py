"""Numbers of heads and of units that modules keep in their attributes, and torch's own attention, which divides by one.

`x.view(b, t, self.heads, self.head_dim)` runs on fewer heads once `heads` says so. Which attributes that are is
guessed: whole numbers of the modules whose code makes the reshape, equal to a size that shrinks there. Nothing rests on
the guess, for the smaller network is proven with it. `nn.MultiheadAttention` takes as many outputs as inputs; with
fewer heads a plain graph of calls with its parameters, under their names, takes its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY
from torch.nn import functional

from secateur.errors import FormatError
from secateur.graph import reshapes
from secateur.graph.calling import evaluating
from secateur.graph.coupling import Coupling
from secateur.graph.program import Program, owner

Rows = dict[str, list[dict[str, Any]]]
_MOST = 8  # guesses that are tried, but for all at once


def rewrites(model: nn.Module, program: Program, coupling: Coupling, removed: Collection[int]) -> Iterator[Rows]:
    """What a record may say beside its edits so that the code bears the removal, the least first.

    Args:
        removed: classes of channels.
    """
    sizes = _shrinking(program, coupling, removed)
    modules = dict(model.named_modules())
    attention = [name for name in sizes if name and type(modules.get(name)) is nn.MultiheadAttention]
    rows: Rows = {"attention": _called(model, program, attention)} if attention else {}
    if rows:
        yield rows
    guesses = [
        {"module": name, "name": key, "was": value, "value": next(iter(sizes[name][value]))}
        for name, module in modules.items()
        for key, value in vars(module).items()
        if name in sizes and type(value) is int and len(sizes[name].get(value, ())) == 1
        if not type(module).__module__.startswith("torch.")
    ]
    names = sorted({g["name"] for g in guesses})
    tries = [c for n in range(1, len(names)) for c in combinations(names, n)][:_MOST]
    for chosen in [*tries, *([tuple(names)] if names else [])]:
        yield {**rows, "attributes": [g for g in guesses if g["name"] in chosen]}
    own = [n for n in sizes if n in modules and not type(modules[n]).__module__.startswith("torch.")]
    if written := reshapes.rows(model, program, coupling, removed, own):
        yield {**rows, "reshapes": written}


def replay(model: nn.Module, surgery: Mapping[str, Any]) -> None:
    """All kinds of rows, in place, on a model whose tensors are cut already.

    Raises:
        FormatError: the model has no such module or attribute.
    """
    modules = dict(model.named_modules())
    for row in surgery.get("attention", ()):
        found = modules.get(row["module"])
        if type(found) is not nn.MultiheadAttention or found is model:
            raise FormatError(f"surgery: {row['module']!r} is no nn.MultiheadAttention")
        parent, _, key = str(row["module"]).rpartition(".")
        made = _fewer_heads(found, str(row["mask"]), str(row["padding"]))
        setattr(model.get_submodule(parent), key, made)
    for row in surgery.get("reshapes", ()):
        reshapes.replay(model, row)
    for row in surgery.get("attributes", ()):
        module = modules.get(row["module"])
        if module is None or vars(module).get(row["name"]) != row["was"] or not 1 <= int(row["value"]) < row["was"]:
            raise FormatError(f"surgery: {row['module']!r} has no attribute {row['name']!r} of {row['was']!r}")
        setattr(module, row["name"], int(row["value"]))


def _shrinking(program: Program, coupling: Coupling, removed: Collection[int]) -> dict[str, dict[int, set[int]]]:
    """By module, sizes of axes in its calls and to what they shrink; a call counts for the modules around its own."""
    wanted = torch.tensor(sorted(removed), dtype=torch.int64)
    found: dict[str, dict[int, set[int]]] = {}
    for n in program.calls:
        for classes in torch.utils._pytree.tree_leaves(coupling.elements.get(n)):
            if not isinstance(classes, Tensor) or not classes.dim():
                continue
            gone = torch.isin(classes, wanted)
            if not bool(gone.any()):
                continue
            for axis, size in enumerate(classes.shape):
                less = int(gone.movedim(axis, 0).reshape(size, -1).all(1).sum())
                for name in _around(owner(n)) if 0 < less < size else ():
                    found.setdefault(name, {}).setdefault(size, set()).add(size - less)
    return found


def _around(name: str) -> list[str]:
    parts = name.split(".") if name else []
    return [".".join(parts[:i]) for i in range(len(parts) + 1)]


def _called(model: nn.Module, program: Program, names: Collection[str]) -> list[dict[str, Any]]:
    """How these attentions are called on the example: of which type their masks are."""
    seen: dict[str, dict[str, Any]] = {}
    form = inspect.signature(nn.MultiheadAttention.forward)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = form.bind(module, *args, **kwargs).arguments
            kinds = {k: _kind(given.get(at)) for k, at in (("mask", "attn_mask"), ("padding", "key_padding_mask"))}
            seen[name] = {"module": name, **kinds}

        return hook

    hooks = [model.get_submodule(n).register_forward_pre_hook(watch(n), with_kwargs=True) for n in names]
    args, kwargs = program.rebuild([program.example[n] for n in program.inputs])
    try:
        with evaluating(model), torch.enable_grad():  # else torch's encoder leaves its layers out
            model(*args, **kwargs)
    finally:
        for h in hooks:
            h.remove()
    return [seen[n] for n in names if n in seen]


def _kind(mask: Tensor | None) -> str:
    return "none" if mask is None else "bool" if mask.dtype is torch.bool else "float"


def _fewer_heads(old: nn.MultiheadAttention, mask: str, padding: str) -> fx.GraphModule:
    """softmax(q k' / sqrt(d) + masks) v over as many heads as the parameters of `old` have now, in torch's own calls.

    For queries, keys and values from one input [batch, length, inputs]; weights are answered as None.
    """
    dim = old.head_dim
    parts: dict[str, Any] = {"in_proj_weight": old.in_proj_weight, "out_proj": old.out_proj}
    if old.in_proj_bias is not None:
        parts["in_proj_bias"] = old.in_proj_bias
    parts["drop"] = nn.Dropout(old.dropout)
    old.out_proj.out_features, old.out_proj.in_features = old.out_proj.weight.shape
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    given = {
        name: fx.Proxy(graph.placeholder(name, default_value=p.default), tracer)
        for name, p in list(inspect.signature(nn.MultiheadAttention.forward).parameters.items())[1:]
    }
    weight: Any = fx.Proxy(graph.get_attr("in_proj_weight"), tracer)
    bias: Any = fx.Proxy(graph.get_attr("in_proj_bias"), tracer) if old.in_proj_bias is not None else None
    x: Any = given["query"] if old.batch_first else given["query"].transpose(0, 1)
    made: Any = functional.linear(x, weight, bias)
    q, k, v = (made.chunk(3, -1)[i].unflatten(-1, (-1, dim)).transpose(1, 2) for i in range(3))
    scores = (q * dim**-0.5) @ k.transpose(-2, -1)
    for kind, name in ((mask, "attn_mask"), (padding, "key_padding_mask")):
        if kind == "none":
            continue
        hidden: Any = given[name] if name == "attn_mask" else given[name].unsqueeze(1).unsqueeze(1)
        scores = scores.masked_fill(hidden, -torch.inf) if kind == "bool" else scores + hidden
    weights = graph.call_module("drop", (scores.softmax(-1).node,))
    y: Any = (fx.Proxy(weights, tracer) @ v).transpose(1, 2).flatten(2)
    out: Any = fx.Proxy(graph.call_module("out_proj", (y.node,)), tracer)
    graph.output(((out if old.batch_first else out.transpose(0, 1)).node, None))
    module = fx.GraphModule(parts, graph, "Attention").train(old.training)
    # What torch's encoder layers ask their attention before they take a kernel of their own, which they must not.
    kept = {"batch_first": old.batch_first, "_qkv_same_embed_dim": False, "head_dim": dim}
    if old.in_proj_bias is None:
        kept["in_proj_bias"] = None
    for key, value in kept.items():
        setattr(module, key, value)
    module.meta[_USER_PRESERVED_ATTRIBUTES_KEY] = kept
    return module
