"""Heads of attention, in torch's own call or written out by matmul or einsum (`products.py`).

What runs beside a product of two activations and carries different channels at each place is an axis of heads. All
channels that meet at one place of it are one head, for queries, keys and values are reshaped as one: they go together
or not at all. Where query heads share a key/value head, its repetition carries its channels to each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View, argument, told
from secateur.graph.ops.binary import met
from secateur.graph.program import Call, Program, shape_of


class DotProductAttention(Operator):
    """aten.scaled_dot_product_attention: softmax(q k' + mask) v."""

    targets: ClassVar[frozenset[str]] = frozenset({"aten.scaled_dot_product_attention.default"})

    def positive(self, node: Call, view: View) -> Tensor:
        q, k, v = node.args[:3]

        def keys(x: Tensor) -> Tensor:
            return _for_each_query(node, x).transpose(-2, -1)

        scores = view.mask(q) @ keys(view.nonzero(k)) + view.nonzero(q) @ keys(view.mask(k))
        mask = argument(node, "attn_mask")
        if mask is not None:
            scores = scores + view.mask(mask)
        scores = scores.sum(-1, keepdim=True).expand(scores.shape)  # a softmax: each weight moves with every score
        values = _for_each_query(node, view.nonzero(v)), _for_each_query(node, view.mask(v))
        return scores @ values[0] + torch.ones_like(scores) @ values[1]

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        q, k, v = (see(x) for x in node.args[:3])
        shape = torch.Size(shape_of(node))
        parts = []
        for x in (q, _for_each_query(node, k), _for_each_query(node, v)):
            parts.append(x.expand(*shape[:-2], *x.shape[-2:]).reshape(math.prod(shape[:-2]), -1))
        found = heads(node, parts, labels).reshape(*shape[:-2], 1, 1)
        mask = argument(node, "attn_mask")
        if mask is not None:  # as large as the scores, [.., queries, keys]
            met(node, found.expand(*shape[:-1], k.shape[-2]), see(mask), labels)
        return found.expand(shape)


def heads(node: Call, parts: list[Tensor], labels: Labels) -> Tensor:
    """The head at every place beside a product, int64 [places]: what meets there becomes one class.

    Where all of them are one class, no head can go without the others, and all stay; so do those that meet a constant.

    Args:
        parts: the operands' labels, int64 [places, everything else].
    """
    meeting = torch.cat(parts, 1)
    if not all(labels.active(p) for p in parts):
        first = next((labels.why[x] for x in labels.roots(meeting).unique().tolist() if x in labels.why), None)
        why = first or f"{told(node)} multiplies them with a constant of fixed size"
        labels.pin(meeting, why)
        return torch.full((len(meeting),), labels.fixed(why))
    seen: dict[tuple[int, ...], int] = {}
    places: list[int] = []
    for row in meeting:
        here = row[row != 0].unique_consecutive().unique()
        key = tuple(here.tolist())
        if key not in seen:
            seen[key] = key[0] if key else labels.PIN
            labels.union(here, here[:1].expand(here.shape))
            if any(bool((p[len(places)] == 0).all()) for p in parts):
                labels.pin(here, f"{told(node)} has a constant of fixed size beside them")
        places.append(seen[key])
    found = labels.roots(torch.tensor(places))
    if bool((found == found[0]).all()):
        labels.pin(found, f"{told(node)} multiplies them with each other, and there are no heads")
    labels.heads.update(x for x in found.tolist() if x > labels.PIN)
    return found


def _for_each_query(node: Call, x: Tensor) -> Tensor:
    """Keys or values, those of a group repeated for each of its queries."""
    times = shape_of(node.args[0])[-3] // x.shape[-3] if argument(node, "enable_gqa") else 1
    return x.repeat_interleave(times, dim=-3) if times > 1 else x
