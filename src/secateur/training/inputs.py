"""What comes into a layer: norms and Gram matrices of its inputs over some batches, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.errors import UsageError
from secateur.training import ranks
from secateur.training.batches import call
from secateur.training.metrics import evaluating

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
Layer = nn.Linear | nn.Conv1d | nn.Conv2d


class _Enough(Exception):
    """Thrown through forward once the layer has been seen: what follows it does not matter."""


class Inputs:
    """Inputs of the linear and convolution layers of `model`, seen as it runs in evaluation mode.

    Args:
        batches: called for each measurement; gives the inputs of some batches, the same ones every time.
        told: called before each measurement, for progress and interrupts.
    """

    def __init__(
        self, model: nn.Module, batches: Callable[[], Iterable[Any]], told: Callable[[], None] = lambda: None
    ) -> None:
        self._model, self._batches, self._told = model, batches, told
        self._norms: dict[str, Tensor] = {}

    def norm(self, name: str) -> Tensor:
        """Root of the mean, over examples, of sum x^2 (over positions), in the parameter's shape; measured once."""
        if name not in self._norms:
            layer, groups = self._layer(name)
            square = self._mean(name, layer, lambda x: x.square().sum(dim=1)).clamp(min=0.0)
            rows = square.sqrt().repeat_interleave(layer.weight.shape[0] // groups, dim=0)
            self._norms[name] = rows.reshape(layer.weight.shape)
        return self._norms[name]

    def gram(self, name: str) -> Tensor:
        """2 X X^T, a mean over examples, [groups, cols, cols]; measured anew, through the weights as they are now."""
        return 2.0 * self._mean(name, self._layer(name)[0], lambda x: x.mT @ x)

    def _layer(self, name: str) -> tuple[Layer, int]:
        owner, _, leaf = name.rpartition(".")
        layer = self._model.get_submodule(owner)
        if leaf != "weight" or not isinstance(layer, _LAYERS):
            raise UsageError(
                f"{name}: inputs are measured of the weights of nn.Linear, nn.Conv1d and nn.Conv2d, this belongs to "
                f"{type(layer).__name__}; leave it out with exclude=, or take a saliency and solver without inputs"
            )
        return layer, 1 if isinstance(layer, nn.Linear) else layer.groups

    def _mean(self, name: str, layer: Layer, of: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over examples of `of(x)`, x [groups, positions, cols] the inputs of a batch."""
        total, n = torch.zeros(()), 0

        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal total, n
            x = args[0] if args else next(iter(kwargs.values()))
            total, n = total + of(unfolded(layer, x.detach())), n + len(x)
            raise _Enough

        self._told()
        hook = layer.register_forward_pre_hook(see, with_kwargs=True)
        try:
            with evaluating(self._model):
                for inputs in self._batches():
                    with suppress(_Enough):
                        call(self._model, inputs)
        finally:
            hook.remove()
        if n == 0:
            raise UsageError(f"{name}: its layer was not called on the calibration data; leave it out with exclude=")
        total, n = ranks.summed(total, n)
        return total / n


def unfolded(layer: Layer, x: Tensor) -> Tensor:
    """A batch of a layer's inputs as the matrix its weight multiplies, [groups, positions, cols], float32.

    Columns as in the view `oc`: (channel of the group, kernel row, kernel column).
    """
    if isinstance(layer, nn.Linear):
        return x.float().reshape(1, -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x.float(), layer._reversed_padding_repeated_twice, mode=mode)
    flat = isinstance(layer, nn.Conv1d)
    one = (1,) if flat else ()
    columns: Tensor = functional.unfold(
        x[:, :, None] if flat else x, one + layer.kernel_size, one + layer.dilation, 0, one + layer.stride
    )
    grouped = columns.reshape(len(columns), layer.groups, -1, columns.shape[-1])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)
