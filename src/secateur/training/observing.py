"""Values of a forward pass as calibration sees them: some of every batch, its extremes among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from secateur.constraints._observers import sample_of
from secateur.errors import UsageError
from secateur.training.batches import Batch, first_tensor


class _Watch(fx.Interpreter):
    """Runs the calls and keeps a sample of the results that are asked for."""

    def __init__(self, module: fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(module)
        self.names = names
        self.seen: dict[str, list[Tensor]] = {n: [] for n in names}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.seen[n.name].append(torch.from_numpy(sample_of(value.detach().float().cpu().numpy(), n.name)))
        return value


def observe(module: fx.GraphModule, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Samples of the results of calls, in evaluation mode.

    Args:
        module: not changed; its calls have no state of training.
        names: of calls in its graph.
        batches: of (inputs, targets); at least one.
    Returns:
        float32 [batches, values] by name: evenly spaced values of every batch, and its smallest and largest.
    Raises:
        UsageError: no batches, or constant inputs. ConstraintError: NaN or infinity, with the call.
    """
    watch = _Watch(module, frozenset(names))
    places = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    module.eval()
    n, constant = 0, True
    with torch.no_grad():
        for inputs, _ in batches:
            first = first_tensor(inputs)
            constant = constant and bool((first == first.flatten()[0]).all()) if first.numel() else constant
            watch.run(*_by_place(inputs, places))
            n += 1
    if n == 0:
        raise UsageError("calibration: no batches; it needs at least one batch of training data")
    if constant:
        raise UsageError(
            "calibration: every input value is the same, so ranges of activations mean nothing; give real data"
        )
    return {name: torch.stack(rows) for name, rows in watch.seen.items()}


def _by_place(inputs: Any, places: list[str]) -> list[Any]:
    if isinstance(inputs, Mapping):
        return [inputs[p] for p in places if p in inputs]
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]
