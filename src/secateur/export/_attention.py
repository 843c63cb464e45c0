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


def write_out_attention(graph: torch.fx.Graph) -> None:
    """softmax(scale q k' + mask) v for every `scaled_dot_product_attention` of a traced graph, in place.

    The causal mask is one triangle of -inf, made by two calls on constants; a mask of booleans becomes 0 and -inf.
    Calls with dropout stay as they are: they are random, and torch's exporter says what it makes of that.
    """
    for n in [n for n in graph.nodes if n.target is aten.scaled_dot_product_attention.default]:
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), n.args, strict=False))
        given |= n.kwargs
        if given.get("dropout_p"):
            continue
        with graph.inserting_before(n):
            n.replace_all_uses_with(_attention(graph, n, given))
        graph.erase_node(n)
        # Torch's fused kernel leaves its answer in another order of memory, which the views behind it count on.
        for view in graph.nodes:
            if view.target is aten.view.default:
                view.target = aten.reshape.default


def _attention(graph: torch.fx.Graph, n: Call, given: dict[str, Any]) -> Call:
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
    if (mask := _mask(call, scores, given)) is not None:
        scores = call(aten.add.Tensor, scores, mask)
    return call(aten.matmul.default, call(aten.softmax.int, scores, -1), v)


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
