"""Torch's fused attention written out before the export, in the few calls that engines know again as attention.

Torch's own ONNX form of it computes the scale and the shapes of each call while the network runs (square roots,
CastLike, chains of Shape) and takes tensors of four axes only.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch

# A torch.fx.Node. Its own argument types are unions of everything, of no use to a type checker.
Call: TypeAlias = Any

aten = torch.ops.aten


def write_out_attention(exported: torch.export.ExportedProgram) -> None:
    """softmax(scale q k' + mask) v for every `scaled_dot_product_attention` of a traced graph, in place.

    The causal mask is one triangle of -inf, made by two calls on constants; a mask of booleans becomes 0 and -inf.
    A row that may see no key is 0, as torch has it, where the plain formula is NaN: see `_rows_that_see`.
    Calls with dropout stay as they are: they are random, and torch's exporter says what it makes of that.
    """
    graph = exported.graph
    calls = []
    for n in graph.nodes:
        if n.target is aten.scaled_dot_product_attention.default:
            given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), n.args, strict=False))
            given |= n.kwargs
            if not given.get("dropout_p"):
                calls.append((n, given))
    known = _known(exported) if any(given.get("attn_mask") is not None for _, given in calls) else {}
    for n, given in calls:
        with graph.inserting_before(n):
            n.replace_all_uses_with(_attention(graph, n, given, known))
        graph.erase_node(n)
    for view in graph.nodes if calls else ():
        # Torch's fused kernel leaves its answer in another order of memory, which the views behind it count on.
        if view.target is aten.view.default:
            view.target = aten.reshape.default


def _known(exported: torch.export.ExportedProgram) -> dict[Call, Any]:
    """Buffers, constants of the code, and what is computed from them alone; nothing if the code writes into them."""
    known: dict[Call, Any] = {}
    buffers, constants = (
        exported.graph_signature.inputs_to_buffers,
        exported.graph_signature.inputs_to_lifted_tensor_constants,
    )
    for n in exported.graph.nodes:
        if n.op == "placeholder" and n.name in buffers:
            known[n] = exported.state_dict.get(buffers[n.name], exported.constants.get(buffers[n.name]))
        elif n.op == "placeholder" and n.name in constants:
            known[n] = exported.constants[constants[n.name]]
        elif n.op == "call_function" and _writes(n) and any(a in known for a in n.all_input_nodes):
            return {}
        elif n.op == "call_function" and all(a in known for a in n.all_input_nodes) and not _draws(n):
            args, kwargs = torch.fx.node.map_arg((n.args, n.kwargs), known.get)
            known[n] = n.target(*args, **kwargs)
    return known


def _draws(n: Call) -> bool:
    """Does a call draw random numbers?"""
    return torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())


def _writes(n: Call) -> bool:
    """Does a call change an argument?"""
    return isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable


def _attention(graph: torch.fx.Graph, n: Call, given: dict[str, Any], known: dict[Call, Any]) -> Call:
    def call(target: Any, *args: Any) -> Call:
        made = graph.call_function(target, args)
        made.meta = {k: v for k, v in n.meta.items() if k != "val"}
        made.meta["val"] = target(*torch.fx.node.map_arg(args, lambda a: a.meta["val"]))
        return made

    q, k, v = given["query"], given["key"], given["value"]
    if given.get("enable_gqa"):
        k, v = (_for_each_query(call, q, x) for x in (k, v))
    scale = given.get("scale")
    scale = q.meta["val"].shape[-1] ** -0.5 if scale is None else scale
    scores = call(aten.matmul.default, call(aten.mul.Tensor, q, scale), call(aten.transpose.int, k, -2, -1))
    seen = None
    if (mask := _mask(call, scores, given)) is not None:
        if not given.get("is_causal") and not _shows_every_row_a_key(known.get(given["attn_mask"])):
            mask, seen = _rows_that_see(call, mask)
        scores = call(aten.add.Tensor, scores, mask)
    answer = call(aten.matmul.default, call(aten.softmax.int, scores, -1), v)
    return answer if seen is None else call(aten.mul.Tensor, answer, seen)


def _shows_every_row_a_key(mask: torch.Tensor | None) -> bool:
    """Of a mask whose values are known: has every row a key that it may see?"""
    if mask is None:
        return False
    return bool((mask if mask.dtype is torch.bool else mask > -math.inf).any(-1).all())


def _rows_that_see(call: Any, mask: Call) -> tuple[Call, Call]:
    """The mask without its rows of -inf alone, and a factor for the answer's rows: 0 for those, 1 for the others.

    Cheaper than to look for NaN in the scores, which have heads: that made attention of 8 heads over 256 keys six
    times slower in ONNX Runtime (1.31, one thread, a busy machine), this 1.06 to 1.25 times (calls interleaved).
    """
    nothing, one = (call(aten.new_full.default, mask, [], x) for x in (0.0, 1.0))
    sees = call(aten.gt.Scalar, call(aten.amax.default, mask, [-1], True), -math.inf)
    return call(aten.where.self, sees, mask, nothing), call(aten.where.self, sees, one, nothing)


def _mask(call: Any, scores: Call, given: dict[str, Any]) -> Call | None:
    """What is added to the scores."""
    value = scores.meta["val"]
    if given.get("is_causal"):
        full = call(aten.new_full.default, scores, [value.shape[-2], value.shape[-1]], -math.inf)
        return call(aten.triu.default, full, 1)
    mask = given.get("attn_mask")
    if mask is None or mask.meta["val"].dtype is not torch.bool:
        return mask
    allowed, forbidden = (call(aten.new_full.default, scores, [], x) for x in (0.0, -math.inf))
    return call(aten.where.self, mask, allowed, forbidden)


def _for_each_query(call: Any, q: Call, x: Call) -> Call:
    """Keys or values [..., groups, length, dim] repeated to as many heads as there are queries."""
    shape = [*x.meta["val"].shape]
    times = q.meta["val"].shape[-3] // shape[-3]
    if times == 1:
        return x
    wide = [*shape[:-2], times, *shape[-2:]]
    x = call(aten.expand.default, call(aten.unsqueeze.default, x, -3), wide)
    return call(aten.reshape.default, x, [*shape[:-3], shape[-3] * times, *shape[-2:]])
