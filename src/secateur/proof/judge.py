"""The metric that a report quotes, asked of modules: those that call the engine or ONNX Runtime among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.training.batches import call, first_batch, map_tensors, tensors
from secateur.training.metrics import scored

if TYPE_CHECKING:
    from secateur.data.spec import Splits
    from secateur.graph import Example

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Judge:
    """The metric that the report quotes: on the test split where there is one, else on validation.

    `evaluate` takes a module; engine and ONNX Runtime are judged through a module that calls them.
    """

    name: str
    evaluate: Any
    split: str
    n_examples: int | None
    higher_is_better: bool

    def metric(self, module: nn.Module) -> dict[str, Any]:
        """Name, value and number of examples; for class scores also `loss` and `calibration_error`."""
        value, more = scored(self.evaluate, module)
        return {
            "name": self.name,
            "value": value,
            **more,
            "split": self.split,
            "higher_is_better": self.higher_is_better,
            **({} if self.n_examples is None else {"n_examples": self.n_examples}),
        }


class Session(nn.Module):
    """Any session with ONNX Runtime's `run` as a module: tensors in, tensors out, nested as `like` is.

    `rows`: the only batch that the written network takes; larger ones are run piece by piece. None: any batch.
    """

    def __init__(self, session: Any, like: Any = None, rows: int | None = None) -> None:
        super().__init__()
        self._session, self._like, self._rows = session, like, rows
        self.names = [i.name for i in session.get_inputs()]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        arrays = feeds(self.names, named or inputs)
        outputs = [torch.from_numpy(np.asarray(y, order="C")) for y in self._run(arrays)]
        places, structure = torch.utils._pytree.tree_flatten(self._like)
        if len(tensors(self._like)) != len(outputs):
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        rest = iter(outputs)
        return torch.utils._pytree.tree_unflatten(
            [next(rest) if isinstance(p, Tensor) else p for p in places], structure
        )

    def _run(self, arrays: dict[str, Array]) -> list[Array]:
        rows, n = self._rows, max((len(a) for a in arrays.values() if a.ndim), default=0)
        if rows is None or n == rows:
            return list(self._session.run(None, arrays))
        parts = []
        for start in range(0, n, rows):
            at = np.arange(start, start + rows) % n  # the last piece is filled up with the first rows
            parts.append(self._session.run(None, {k: a[at] if a.ndim else a for k, a in arrays.items()}))
        return [
            np.concatenate(ys)[: len(ys[0]) // rows * n] if ys[0].ndim else ys[0] for ys in zip(*parts, strict=True)
        ]


class Flat(nn.Module):
    """A module called with one tensor per name of the written graph: nests and constants are put back around them."""

    def __init__(self, module: nn.Module, inputs: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self._names = module, tuple(names)
        self._by_name = _by_name(names, inputs)
        self._inputs = map_tensors(inputs, lambda t: t[:1] if t.dim() else t)

    def forward(self, *given: Tensor) -> Any:
        if self._by_name:
            inputs = {**self._inputs, **dict(zip(self._names, given, strict=True))}
        else:
            places, structure = torch.utils._pytree.tree_flatten(self._inputs)
            rest = iter(given)
            inputs = torch.utils._pytree.tree_unflatten(
                [next(rest) if isinstance(p, Tensor) else p for p in places], structure
            )
        return tuple(tensors(call(self.module, inputs)))


def feeds(names: Sequence[str], inputs: Any) -> dict[str, Array]:
    """Arrays by input name: from a flat dict by its keys, from any other nest in order; constants are left out."""
    found = [(n, inputs[n]) for n in names] if _by_name(names, inputs) else zip(names, tensors(inputs), strict=True)
    return {k: np.asarray(v.detach().cpu().numpy(), order="C") for k, v in found}


def order(names: Sequence[str], inputs: Any) -> list[str]:
    """The names of the written graph's inputs in the order in which the tensors stand in `inputs`."""
    return [k for k in inputs if k in names] if _by_name(names, inputs) else list(names)


def _by_name(names: Sequence[str], inputs: Any) -> bool:
    return isinstance(inputs, Mapping) and all(isinstance(inputs.get(n), Tensor) for n in names)


def real_inputs(names: Sequence[str], splits: Splits, example: Example, at_most: int) -> dict[str, Any]:
    """Held-out inputs as arrays by the written graph's names: so many examples, or one call's where rows are none.

    Args:
        names: of the written graph's inputs, in its order.
    """
    if example.batched:
        arrays = [a[:at_most] for a in whole_split(splits, "test")[0]]
    else:
        held_out = splits.valid if splits.test is None else splits.test
        arrays = [t.numpy() for t in tensors(first_batch(held_out))]
    return dict(zip(order(names, example.inputs), arrays, strict=True))


def whole_split(splits: Splits, name: str) -> tuple[list[Any], Any]:
    """All inputs (a list, one array per network input) and targets of a split as NumPy arrays."""
    part = getattr(splits, name)
    if part is None:
        part = splits.valid
    inputs, targets = [], []
    for x, y in part:
        inputs.append(tensors(x))
        targets.append(y)
    columns = [torch.cat(parts).numpy() for parts in zip(*inputs, strict=True)]
    return columns, torch.cat(targets).numpy()
