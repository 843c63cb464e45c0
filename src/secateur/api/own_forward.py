"""The user's own module on 8-bit grids: its forward pass becomes that of the rewritten net, on its own parameters."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UnsupportedError
from secateur.graph.activations import Calls, Grid, rewrite
from secateur.run.net import Net
from secateur.training import learned


class OwnForward:
    """From `begin` to `end`, `model(inputs)` rounds activations to grids whose scales the user's optimizer trains.

    The rewritten net shares the model's parameters and buffers. A batch norm that it folds into the layer before leaves
    an identity in the model, so that the model's own forward pass, which `end` gives back, is the same net in floats.
    Scales are parameters of the optimizer from the start, so that its state fits at any time of the loop; they get no
    gradient before `begin`.

    Args:
        made, grids: the forward pass as calls and its grids, of the model as it comes.
        optimizer: the user's; the scales join its first group without weight decay, or its first.
    Raises:
        UnsupportedError: a batch norm that is to be folded has no bias, nor has the layer before it.
    """

    def __init__(
        self, model: nn.Module, made: Calls, grids: tuple[Grid, ...], optimizer: torch.optim.Optimizer
    ) -> None:
        self._model, self._stack = model, ExitStack()
        self._module: nn.Module | None = None
        live = dict(model.named_parameters(remove_duplicate=False))
        for layer, norm in made.norms:
            if f"{layer}.bias" not in live and f"{norm}.bias" not in live:
                raise UnsupportedError(
                    f"{norm}: it is folded into {layer}, and neither has a bias that your optimizer could train; give "
                    "one of them a bias (bias=True, affine=True), or use compress()"
                )
        names = learned.scales_of(rewrite(made, grids)[0])
        some = next(iter(live.values()))
        self._scales = {k: nn.Parameter(torch.ones((), dtype=some.dtype, device=some.device)) for k in names}
        groups = optimizer.param_groups
        group = next((g for g in groups if not g.get("weight_decay")), groups[0])
        group["params"].extend(self._scales.values())

    def begin(self, net: Net) -> tuple[str, ...]:
        """Take over the values of `net`, which is rewritten and calibrated; the names of the scales that are learned.

        `net.module` then holds the model's own parameters. A second call with the same net changes nothing.
        """
        scales = tuple(k for k in learned.scales_of(net.module) if k in self._scales)
        if net.module is self._module:
            return tuple(k for k in self._scales if k in dict(net.module.named_parameters()))
        self._module = net.module
        with torch.no_grad():
            self._share(net)
            self._stack.enter_context(learned.learning(net.module, scales))
            for name in scales:
                self._scales[name].copy_(net.module.get_parameter(name))
                net.module.register_parameter(name, self._scales[name])
        own = dict(self._model.named_modules(remove_duplicate=False))
        modes = [(own[k], m) for k, m in net.module.named_modules(remove_duplicate=False) if k in own]

        def forward(*args: Any, **kwargs: Any) -> Any:
            for theirs, ours in modes:
                ours.training = theirs.training
            return net.module.forward(*args, **kwargs)

        self._model.forward = forward  # type: ignore[method-assign]
        return scales

    def end(self) -> None:
        """The model's own forward pass again; the scales are buffers of the rewritten net."""
        self._stack.close()
        self._model.__dict__.pop("forward", None)

    def state(self) -> dict[str, Tensor]:
        """The scales, to be resumed."""
        return {k: v.detach().clone() for k, v in self._scales.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Exactly as `state` gave them, after `begin` where the loop was past it."""
        with torch.no_grad():
            for name, value in state.items():
                self._scales[name].copy_(value)

    def _share(self, net: Net) -> None:
        """The rewritten net's values into the model, and the model's tensors into the rewritten net."""
        for layer, norm in net.surgery[-1]["norms"]:
            own = self._model.get_submodule(norm)
            folded: Any = net.module.get_submodule(layer)
            bias = self._model.get_submodule(layer).bias
            _identity(own)
            if bias is None:
                own.bias.copy_(folded.bias)  # type: ignore[operator,union-attr]
                folded.bias = own.bias
        live = dict(self._model.named_parameters(remove_duplicate=False))
        kept = dict(self._model.named_buffers(remove_duplicate=False))
        for prefix, part in net.module.named_modules(remove_duplicate=False):
            at = f"{prefix}." if prefix else ""
            for own_part, known in ((part._parameters, live), (part._buffers, kept)):
                for name, value in list(own_part.items()):
                    theirs = known.get(at + name)
                    if value is not None and theirs is not None and theirs is not value:
                        theirs.copy_(value)
                        own_part[name] = theirs  # type: ignore[index,assignment]


def _identity(norm: Any) -> None:
    """A batch norm that in evaluation mode gives what it is given."""
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
    if norm.weight is not None:
        norm.weight.fill_(1.0)
    if norm.bias is not None:
        norm.bias.zero_()
