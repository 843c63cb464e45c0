"""Parameters that no layer reads as its own: used in the code itself, moved or computed on before, added, looked up.

`x @ self.w`, `F.linear(x, self.w.t())`, `torch.einsum`, position embeddings, tokens. What a call multiplies with such a
parameter says how often each weight is used and which of its axes are summed over; the others are its rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from secateur.graph.ops import rule
from secateur.graph.ops._operator import Use, argument
from secateur.graph.ops.elementwise import Elementwise
from secateur.graph.ops.moving import Move, moved
from secateur.graph.program import Call, Program, shape_of

Reader = tuple[Call, str]  # an input of a call that is made of a parameter alone, and the parameter's name


def readers(program: Program, claims: Mapping[Call, Collection[str]]) -> dict[Call, list[Reader]]:
    """The calls in which parameters meet what depends on the model's input, but for those that the call `claims`.

    A tied weight may be one call's own (an embedding's) and read in the code by another (`h @ w.t()`): both count.
    """
    made: dict[Call, set[str]] = {}  # values that depend on no input -> parameters in them
    for n in program.nodes:
        if n.op in ("placeholder", "get_attr") and n.name not in program.inputs:
            made[n] = {program.params[n.name]} if n.name in program.params else set()
    found: dict[Call, list[Reader]] = {}
    for n in program.calls:
        inputs = n.all_input_nodes
        if all(a in made for a in inputs):
            made[n] = set().union(*(made[a] for a in inputs))
            continue
        met = [(a, name) for a in inputs for name in sorted(made.get(a, set()) - set(claims[n]))]
        if met:
            found[n] = met
    return found


def use(n: Call, reader: Reader, program: Program) -> Use:
    """What a call does with a parameter that reaches it through moves and computations, or as it is."""
    source, name = reader
    shape = program.shapes[name]
    product = _product(n, source)
    if product is None:
        if sum(size > 1 for size in shape) <= 1:  # a vector, whatever its axes of length one
            return Use("norm" if _kind(n) in ("mul", "div") else "bias")
        return Use("embedding", rows=tuple(range(len(shape) - 1)))
    macs, summed = product
    positions = max(1, round(macs / max(1, program.batch) / max(1, math.prod(shape))))
    return Use("matmul", positions, _rows(source, summed, name, program))


def _kind(n: Call) -> str:
    """An ATen call's name without its overload: `matmul`, `conv_transpose2d`."""
    return str(n.target).removeprefix("aten.").partition(".")[0].strip("_")


def _product(n: Call, source: Call) -> tuple[int, set[int]] | None:
    """Multiply-adds of a call, and the axes of `source` that it sums over; None when it only adds or picks."""
    kind = _kind(n)
    value = n.meta["val"]
    if not isinstance(value, Tensor):
        return None
    out, shape = tuple(int(s) for s in value.shape), shape_of(source)
    if kind == "einsum":
        return _einsum(n, source)
    if kind in ("matmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv"):
        factors = n.args[1:3] if kind.startswith(("add", "badd")) else n.args[:2]
        if source not in factors:
            return None
        axis = len(shape) - 1 if source is factors[0] or len(shape) == 1 else len(shape) - 2
        return math.prod(out) * shape[axis], {axis}
    if kind == "linear" and source is n.args[1]:
        return math.prod(out) * shape[-1], {len(shape) - 1}
    if kind.startswith("conv_transpose") and source is n.args[1]:
        inputs = math.prod(shape_of(n.args[0])) // shape[0]
        return inputs * math.prod(shape), set(range(len(shape))) - {1}
    if kind.startswith("conv") and source is n.args[1]:
        return math.prod(out) * math.prod(shape[1:]), set(range(1, len(shape)))
    if kind == "bilinear" and source is n.args[2]:
        return math.prod(out) * math.prod(shape[1:]), {1, 2}
    if kind == "scaled_dot_product_attention" and source in n.args[:3]:
        keys = shape_of(n.args[1])
        if source is n.args[2]:
            return math.prod(out) * keys[-2], {len(shape) - 2}
        return math.prod(out) // out[-1] * keys[-2] * keys[-1], {len(shape) - 1}
    return None


def _einsum(n: Call, source: Call) -> tuple[int, set[int]]:
    """The product of all its indices' sizes; an index that the result lacks is summed over."""
    equation = str(argument(n, "equation")).replace(" ", "")
    operands = list(argument(n, "tensors"))
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    letters = left.replace(",", "").replace(".", "")
    kept = set(right) if arrow else {x for x in letters if letters.count(x) == 1}
    sizes: dict[str, int] = {}
    broad: list[int] = []
    summed: set[int] = set()
    for term, operand in zip(terms, operands, strict=True):
        shape = shape_of(operand)
        before, dots, after = term.partition("...")
        middle = len(shape) - len(before) - len(after)
        names = [*before, *([""] * middle if dots else []), *after]
        for axis, (index, size) in enumerate(zip(names, shape, strict=True)):
            if index:
                sizes[index] = max(size, sizes.get(index, 1))
            if operand is source and index and index not in kept:
                summed.add(axis)
        broad = max(broad, list(shape[len(before) : len(before) + middle]) if dots else [], key=math.prod)
    return math.prod(sizes.values()) * math.prod(broad), summed


def _rows(source: Call, summed: set[int], name: str, program: Program) -> tuple[int, ...]:
    """The parameter's axes that do not run along the summed axes of `source`."""
    shape = program.shapes[name]
    found = _coordinates(source, name, program)
    if found is None:
        return tuple(a for a in range(len(shape)) if a not in summed) if shape_of(source) == shape else (0,)
    running = set()
    for axis in summed:
        for k, at in enumerate(found):
            here, there = at.narrow(axis, 0, at.shape[axis] - 1), at.narrow(axis, 1, at.shape[axis] - 1)
            if bool(((here != there) & (here >= 0) & (there >= 0)).any()):
                running.add(k)
    return tuple(a for a in range(len(shape)) if a not in running)


def _coordinates(source: Call, name: str, program: Program) -> list[Tensor] | None:
    """For every element of a value its place in the parameter, axis by axis; -1 for what comes from elsewhere.

    None when a computation lies between that does not keep the elements where they are.
    """
    if source.op in ("placeholder", "get_attr"):
        shape = shape_of(source)
        if program.params.get(source.name) != name:
            return [torch.full(shape, -1)] * len(program.shapes[name])
        return list(torch.meshgrid(*(torch.arange(s) for s in shape), indexing="ij"))
    parts = {a: _coordinates(a, name, program) for a in source.all_input_nodes}
    if any(p is None for p in parts.values()):
        return None
    if isinstance(rule(source, program), Move):
        n_axes = len(program.shapes[name])
        results = [moved(source, lambda a, k=k: (parts[a] or [])[k]) for k in range(n_axes)]  # type: ignore[misc]
        return results if all(isinstance(r, Tensor) for r in results) else None
    same = [a for a in parts if shape_of(a) == shape_of(source)]
    own = [a for a in same if bool(((parts[a] or [torch.tensor(-1)])[0] >= 0).any())]
    if own and (len(parts) > 1 or isinstance(rule(source, program), Elementwise)):
        return parts[own[0]]
    return None
