"""What a trace holds beside the network's arithmetic: assertions, and sizes that depend on values. Both are settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

# A torch.fx.Node, as `capture.Call`.
Call = Any


def drop_assertions(graph: fx.Graph) -> None:
    """Take out the calls that answer nothing (assertions on dtypes, values and sizes) and what only they read.

    The model has run on the example inputs by now, so that they hold there.
    """
    for n in reversed(list(graph.nodes)):
        if n.op == "call_function" and not n.users and (_answers_nothing(n) or n.meta.get("for an assertion")):
            for source in n.all_input_nodes:
                source.meta["for an assertion"] = True
            graph.erase_node(n)


def _answers_nothing(n: Call) -> bool:
    if not isinstance(n.target, torch._ops.OpOverload):
        return False
    schema = n.target._schema
    return not schema.returns and not schema.is_mutable


def make_concrete(nodes: tuple[Call, ...], given: Callable[[Call], Any]) -> None:
    """Replace sizes that depend on values (x[mask], nonzero) by what they are on the example inputs.

    Every node's noted value, `meta["val"]`, then has plain numbers for sizes; where all have, nothing is run.

    Args:
        given: the value of a placeholder or attribute.
    """
    if all(_concrete(n.meta.get("val")) for n in nodes):
        return
    env: dict[Call, Any] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for n in nodes:
            if n.op in ("placeholder", "get_attr"):
                env[n] = given(n)
            elif n.op == "call_function":
                env[n] = n.target(*fx.node.map_arg(n.args, env.get), **fx.node.map_arg(n.kwargs, env.get))
                n.meta["val"] = torch.utils._pytree.tree_map(
                    lambda v: v.to("meta") if isinstance(v, Tensor) else v, env[n]
                )


def _concrete(value: Any) -> bool:
    def plain(v: Any) -> bool:
        if isinstance(v, Tensor):
            return all(isinstance(s, int) for s in v.shape)
        return not isinstance(v, torch.SymInt | torch.SymFloat | torch.SymBool)

    return all(plain(v) for v in torch.utils._pytree.tree_leaves(value))
