"""Where batches come from: tensors in memory, or whatever re-iterable the caller has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.training import seeds

Batch = tuple[Any, Any]


class Batches(Protocol):
    """A training set: its length in steps, and the batches of one epoch in an order that only `key` decides."""

    def __len__(self) -> int: ...

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch after the first `skip`."""
        ...


class Ordered(Protocol):
    """Examples that can be drawn in any order (`secateur.data.TensorData` is one)."""

    def __len__(self) -> int: ...

    def order(self, generator: torch.Generator) -> Ordered:
        """The same examples in an order drawn from the generator."""
        ...

    def batch(self, i: int) -> Batch:
        """Batch `i`."""
        ...


class Shuffled:
    """Examples in memory, in a fresh order each epoch; a short last batch is left out."""

    def __init__(self, source: Ordered) -> None:
        self._source = source
        sizes = [example_count(y, x) for x, y in (source.batch(0), source.batch(len(source) - 1))]
        self._n = len(source) - (sizes[-1] < sizes[0])

    def __len__(self) -> int:
        return self._n

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Batch]:
        """Batches in the order drawn from `key`, the first `skip` never built."""
        drawn = self._source.order(seeds.generator(*key, "order"))
        for i in range(skip, self._n):
            yield drawn.batch(i)


class Loader:
    """The caller's re-iterable of `(inputs, targets)`.

    The global generators are seeded before the epoch starts and before each batch, so a loader that shuffles with
    them repeats itself; one with a generator of its own must be re-seeded by its owner to make `--resume` exact.
    """

    def __init__(self, source: Iterable[Batch]) -> None:
        self._source = source
        if iter(source) is source:
            raise UsageError(
                f"train: {type(source).__name__} can be iterated only once; give a re-iterable such as a list of "
                "batches or a DataLoader"
            )
        self._n = len(source) if isinstance(source, Sized) else sum(1 for _ in source)
        if self._n == 0:
            raise UsageError("train: no batches; at least one (inputs, targets) is needed")

    def __len__(self) -> int:
        return self._n

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Batch]:
        """Batches of one pass, the first `skip` read and dropped."""
        seeds.seed_global(*key, "order")
        batches = iter(self._source)
        for i in range(self._n):
            seeds.seed_global(*key, "batch", i)
            try:
                batch = next(batches)
            except StopIteration:
                raise UsageError(f"train: the pass ended after {i} of {self._n} batches; each needs the same") from None
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise UsageError(f"train: a batch is {type(batch).__name__}; a pair (inputs, targets) is needed")
            if i >= skip:
                yield batch[0], batch[1]


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure (tensor, tuple, list, dict) with `change` applied to every tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: map_tensors(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(v, change) for v in value)
    return value


def first_tensor(value: Any) -> Tensor:
    """The first tensor inside a tensor, tuple, list or dict."""
    if isinstance(value, Tensor):
        return value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        return first_tensor(part)
    raise UsageError(f"inputs: {type(value).__name__}; a tensor, or a tuple or dict of tensors, is needed")


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(x)`, `model(*tuple)` or `model(**dict)`."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, list | tuple):
        return model(*inputs)
    return model(inputs)


def example_count(targets: Any, inputs: Any) -> int:
    """Number of examples in a batch."""
    return len(first_tensor(targets if isinstance(targets, Tensor) else inputs))


def source(train: Any) -> Batches:
    """The training set as `Batches`: shuffled here when it can be, in its own order otherwise."""
    return Shuffled(train) if hasattr(train, "order") and hasattr(train, "batch") else Loader(train)
