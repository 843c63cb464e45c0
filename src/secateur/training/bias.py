"""Bias correction: the mean error that rounded weights make of a layer's outputs goes into its bias."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor, nn

from secateur.training.batches import call
from secateur.training.metrics import evaluating

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def corrected(
    model: nn.Module, reference: nn.Module, batches: Callable[[], Iterable[Any]], fixed: Collection[str] = ()
) -> dict[str, Tensor]:
    """The biases with which each layer's mean outputs are those of `reference`.

    Layer after layer, in the order of the modules, through the layers corrected before: the mean error of a layer
    without a bias is part of what its readers get, and their biases take it over. Layers that are not called stay as
    they are.

    Args:
        model: with rounded weights; its biases move on the way and are put back.
        reference: the same net before the rounding.
        batches: gives the inputs of some batches, the same ones at every call.
        fixed: names of parameters that must not move.
    Returns:
        Those that are shifted, by the parameter's name.
    Reference: Nagel et al., ICCV 2019, arXiv:1906.04721, sec. 4.2 (the empirical form).
    """
    names = [
        n
        for n, m in model.named_modules()
        if isinstance(m, _LAYERS) and m.bias is not None and f"{n}.bias" not in fixed
    ]
    wanted = means(reference, names, batches)
    live = {name: model.get_parameter(f"{name}.bias").detach() for name in wanted}
    before = {name: bias.clone() for name, bias in live.items()}
    try:
        for name, bias in live.items():
            found = means(model, [name], batches)
            bias.sub_((found[name] - wanted[name]).to(bias.dtype))
        return {f"{name}.bias": bias.clone() for name, bias in live.items()}
    finally:
        for name, bias in live.items():
            bias.copy_(before[name])


def means(model: nn.Module, names: Collection[str], batches: Callable[[], Iterable[Any]]) -> dict[str, Tensor]:
    """Mean output of each layer and channel, float64, over examples, positions and calls; of those that are called."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str, channel: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def see(module: nn.Module, args: Any, output: Tensor) -> None:
            rows = output.detach().double().movedim(channel, -1).flatten(0, -2)
            sums[name] = sums[name] + rows.sum(dim=0) if name in sums else rows.sum(dim=0)
            counts[name] = counts.get(name, 0) + len(rows)

        return see

    layers = {name: model.get_submodule(name) for name in names}
    hooks = [m.register_forward_hook(watch(n, -1 if isinstance(m, nn.Linear) else 1)) for n, m in layers.items()]
    try:
        with evaluating(model):
            for inputs in batches():
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / counts[name] for name in names if name in sums}
