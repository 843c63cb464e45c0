"""Values of a forward pass as calibration sees them: some of every batch, its extremes among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from secateur.constraints import _observers
from secateur.errors import UsageError
from secateur.training.batches import Batch


class _Watch(fx.Interpreter):
    """Runs the calls and keeps a sample of the results that are asked for."""

    def __init__(self, module: fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(module)
        self.names = names
        self.seen: dict[str, list[Tensor]] = {n: [] for n in names}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.seen[n.name].append(
                torch.from_numpy(_observers.sample_of(value.detach().float().cpu().numpy(), n.name))
            )
        return value


class _Spread:
    """Which values one input takes: the least and the largest, of every channel where it has channels."""

    def __init__(self, name: str) -> None:
        self.name, self.n = name, 0
        self.low = self.high = torch.empty(0)

    def see(self, value: Tensor) -> None:
        _observers.sample_of(
            value.detach().cpu().numpy(), f"input {self.name!r}"
        )  # refuses what is empty or not finite
        flat = value.detach().transpose(0, 1).flatten(1) if value.dim() > 2 else value.detach().reshape(1, -1)
        low, high = flat.amin(1), flat.amax(1)
        self.low = torch.minimum(self.low, low) if self.n else low
        self.high = torch.maximum(self.high, high) if self.n else high
        self.n += 1

    def check(self) -> None:
        """Refuse what cannot be real data."""
        if bool(self.low.min() == self.high.max()):
            raise UsageError(
                f"calibration: every value of input {self.name!r} is the same, {float(self.low[0]):g}, so ranges of "
                "activations mean nothing; give real data"
            )
        same = (self.low == self.high).nonzero().flatten().tolist()
        if same:
            raise UsageError(
                f"calibration: channel {same[0]} of the {len(self.low)} of input {self.name!r} has one value, "
                f"{float(self.low[same[0]]):g}, in all {self.n} batches, so ranges would not fit real data; "
                "give data in which every channel is alive, or more of them: quantize: {calibration: {batches: ...}}"
            )


def observe(module: fx.GraphModule, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Samples of the results of calls, in evaluation mode.

    Args:
        module: not changed; its calls have no state of training.
        names: of calls in its graph.
        batches: of (inputs, targets); at least one.
    Returns:
        float32 [batches, values] by name: evenly spaced values of every batch, and its smallest and largest.
    Raises:
        UsageError: no batches; an input, or one channel of an input [examples, channels, ...], that is always the same.
        ConstraintError: NaN, infinity or no values, with the input or the call.
    """
    watch = _Watch(module, frozenset(names))
    places = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    spreads: dict[str, _Spread] = {}
    module.eval()
    with torch.no_grad():
        for inputs, _ in batches:
            given = _by_place(inputs, places)
            for name, value in zip(places, given, strict=False):
                if isinstance(value, Tensor) and value.is_floating_point():
                    spreads.setdefault(name, _Spread(name)).see(value)
            watch.run(*given)
    if any(not rows for rows in watch.seen.values()):
        raise UsageError("calibration: no batches; it needs at least one batch of training data")
    for spread in spreads.values():
        spread.check()
    return {name: torch.stack(rows) for name, rows in watch.seen.items()}


def _by_place(inputs: Any, places: list[str]) -> list[Any]:
    if isinstance(inputs, Mapping):
        return [inputs[p] for p in places if p in inputs]
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]
