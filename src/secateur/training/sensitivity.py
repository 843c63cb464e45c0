"""What the loss says of each weight before the first step: curvature, Fisher information, what a mask would do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import UnsupportedError
from secateur.training.batches import Batch

Loss = Callable[[Batch], Tensor]  # the loss of a batch as the net is, a mean over its examples
_EXAMPLES = 256  # whose gradients the Fisher information takes one by one


def measured(
    names: Collection[str],
    params: Mapping[str, Tensor],
    loss: Loss,
    batches: Callable[[], Iterable[Batch]],
    generator: torch.Generator,
) -> dict[str, dict[str, Tensor]]:
    """Those of `contracts.FROM_LOSS` that are in `names`, each per parameter; nothing moves, gradients are emptied."""
    learned = {k: p for k, p in params.items() if p.requires_grad}
    zero = {k: torch.zeros_like(p, requires_grad=False) for k, p in params.items()}
    found: dict[str, dict[str, Tensor]] = {}
    with torch.enable_grad():
        if "curvature" in names:
            found["curvature"] = zero | hessian_diagonal(learned, loss, batches(), generator)
        if "fisher" in names:
            found["fisher"] = zero | fisher_diagonal(learned, loss, batches())
        if "sensitivity" in names:
            found["sensitivity"] = zero | connection_sensitivity(learned, loss, batches())
    return found


def hessian_diagonal(
    params: Mapping[str, Tensor], loss: Loss, batches: Iterable[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """Hutchinson: the mean over batches of z * (H z), H the Hessian of the batch's loss and z random signs.

    The expectation over z is the diagonal; of a diagonal H every draw is exact, else entry i has the variance
    sum_j H_ij^2 over j != i, divided by the number of batches.
    """
    names, weights = list(params), list(params.values())
    total, n = {k: torch.zeros_like(p, requires_grad=False) for k, p in params.items()}, 0
    for batch in batches:
        signs = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in weights]
        slopes = _slopes(loss(batch), weights, create_graph=True)
        along = [(g * z).sum() for g, z in zip(slopes, signs, strict=True) if _hangs(g)]
        n += 1
        if not along:  # a loss that is linear in all weights
            continue
        bent = _slopes(torch.stack(along).sum(), weights)
        # H is symmetric: a slope that hangs on weights has a row, so that what is missing was cut off on the way.
        if cut := [k for k, g, hz in zip(names, slopes, bent, strict=True) if hz is None and _hangs(g)]:
            raise UnsupportedError(
                f"{cut[0]}: its curvature cannot be measured, for an operator behind it cannot be differentiated "
                "twice; take the saliency fisher, which needs gradients only"
            )
        for name, z, hz in zip(names, signs, bent, strict=True):
            if hz is not None:
                total[name] += z * hz
    return {k: t / max(n, 1) for k, t in total.items()}


def fisher_diagonal(params: Mapping[str, Tensor], loss: Loss, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The empirical Fisher information: the mean over examples of the squared gradient of one example's loss."""
    total, n = {k: torch.zeros_like(p, requires_grad=False) for k, p in params.items()}, 0
    for one in islice((x for batch in batches for x in examples(batch)), _EXAMPLES):
        n += 1
        for (_, into), g in zip(total.items(), _slopes(loss(one), list(params.values())), strict=True):
            if g is not None:
                into += g.square()
    return {k: t / max(n, 1) for k, t in total.items()}


def connection_sensitivity(params: Mapping[str, Tensor], loss: Loss, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """|dL/dc| at c = 1, c a factor in front of the weight: |w g|, g the mean gradient over the batches."""
    total, n = {k: torch.zeros_like(p, requires_grad=False) for k, p in params.items()}, 0
    for batch in batches:
        n += 1
        for (_, into), g in zip(total.items(), _slopes(loss(batch), list(params.values())), strict=True):
            if g is not None:
                into += g
    return {k: (t / max(n, 1) * params[k].detach()).abs() for k, t in total.items()}


def examples(batch: Batch) -> Iterator[Batch]:
    """A batch example by example, where all its tensors agree along axis 0; else the batch as it is."""
    sizes = {len(t) if t.dim() else 0 for t in tree_leaves(batch) if isinstance(t, Tensor)}
    if len(sizes) != 1 or 0 in sizes:
        yield batch
        return
    for i in range(sizes.pop()):
        yield tree_map(lambda t, i=i: t[i : i + 1] if isinstance(t, Tensor) else t, batch)


def _hangs(slope: Tensor | None) -> bool:
    return slope is not None and slope.requires_grad


def _slopes(loss: Tensor, weights: list[Tensor], create_graph: bool = False) -> tuple[Any, ...]:
    return torch.autograd.grad(loss, weights, create_graph=create_graph, allow_unused=True)
