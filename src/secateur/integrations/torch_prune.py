"""Masks of `torch.nn.utils.prune`: what it pruned goes on here, what was pruned here goes on there.

>>> # import_masks(model)  # masks become zeros; then compress(model, ..., solver={"keep_zeros": True, ...})
>>> # export_masks(result.model)  # and torch's own tools go on from ours
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.utils import prune

from secateur.errors import UsageError


def import_masks(model: nn.Module) -> dict[str, int]:
    """Make torch's masks permanent in place: weights are parameters again, zero where they were masked.

    Returns:
        Name of each weight -> how many of it are zero. `compress` does this to its copy by itself; a `Compressor`
        trains the module that it is given, so that masks have to go first.
    """
    found = {}
    for prefix, module in model.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                name = hook._tensor_name
                prune.remove(module, name)
                weight = getattr(module, name)
                found[f"{prefix}.{name}" if prefix else name] = int(weight.numel() - weight.count_nonzero())
    return found


def export_masks(model: nn.Module, names: Iterable[str] | None = None) -> list[str]:
    """Put a mask of torch's on every weight that has zeros, in place; weights and outputs are as before.

    Args:
        names: of parameters; None: all with a zero and more than one dimension.

    Returns:
        The names that have a mask now.

    Raises:
        UsageError: a name that the model lacks, or whose weight has a mask already.
    """
    parameters = dict(model.named_parameters())
    chosen = list(names) if names is not None else [k for k, p in parameters.items() if p.dim() > 1 and not p.all()]
    for name in chosen:
        if name not in parameters:
            raise UsageError(
                f"export_masks: {name}: no such parameter; if it has a mask (as {name}_orig), import_masks first"
            )
    for name in chosen:
        owner, _, leaf = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(owner), leaf, parameters[name].detach() != 0)
    return chosen
