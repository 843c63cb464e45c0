"""Where batches come from: tensors in memory, or whatever re-iterable the caller has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        self._n = length(source)
        if self._n == 0:
            raise UsageError("train: no batches; at least one (inputs, targets) is needed")

    def __len__(self) -> int:
        return self._n

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Batch]:
        """Batches of one pass, the first `skip` read and dropped.

        A batch of one example after larger ones (the rest of a data set) is joined to the one before it, as batch
        statistics of one example do not exist.
        """
        seeds.seed_global(*key, "order")
        batches = iter(self._source)
        before: Batch | None = None
        first: list[str] = []
        for i in range(self._n):
            seeds.seed_global(*key, "batch", i)
            try:
                batch = pair(next(batches), "train")
            except StopIteration:
                raise UsageError(f"train: the pass ended after {i} of {self._n} batches; each needs the same") from None
            now = constants(batch[0])
            if i and now != first:
                raise UsageError(
                    f"train: inputs of batch {i} hold {', '.join(now) or 'tensors only'} where the first batch has "
                    f"{', '.join(first) or 'tensors only'}; what is no tensor is a constant of the written network, "
                    "so give it as a tensor"
                )
            first = now
            if before is not None and _examples(batch) == 1 < _examples(before):
                batch = joined(before, batch)
            before = batch
            if i >= skip:
                yield batch


def length(source: Iterable[Any]) -> int:
    """Number of batches of one pass; counted where it is not known (a DataLoader over an IterableDataset)."""
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:
        return sum(1 for _ in source)


def pair(batch: Any, subject: str) -> Batch:
    """A batch as (inputs, targets); UsageError when it is something else."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    what, hint = f"a {type(batch).__name__}", ""
    if isinstance(batch, tuple | list):
        what += f" of {len(batch)}"
        hint = "; weights belong to the targets: (inputs, (targets, weights)) and a loss= that takes them"
    elif isinstance(batch, Mapping):
        what += f" of {', '.join(map(str, list(batch)[:4]))}"
    raise UsageError(f"{subject}: a batch is {what}; a pair (inputs, targets) is needed{hint}")


def first_batch(data: Any, subject: str = "train") -> Any:
    """Inputs of the first batch."""
    for batch in data:
        return pair(batch, subject)[0]
    raise UsageError(f"{subject}: no batches; at least one (inputs, targets) is needed")


def joined(a: Batch, b: Batch) -> Batch:
    """Two batches as one: tensors with an example axis one after the other, everything else as `a` has it."""
    n, m = _examples(a), _examples(b)

    def one(x: Any, y: Any) -> Any:
        both = isinstance(x, Tensor) and isinstance(y, Tensor) and x.dim() and len(x) == n and len(y) == m
        return torch.cat((x, y)) if both else x

    made: Batch = torch.utils._pytree.tree_map(one, a, b)
    return made


def _examples(batch: Batch) -> int:
    found = [t for t in tensors(batch) if t.dim()]
    return len(found[0]) if found else 0


def tensors(value: Any) -> list[Tensor]:
    """All tensors inside a nest of tuples, named tuples, lists and dicts, in order."""
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def constants(inputs: Any) -> list[str]:
    """What is no tensor among inputs, in order, as text."""
    return [f"{t!r:.40}" for t in torch.utils._pytree.tree_leaves(inputs) if not isinstance(t, Tensor)]


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure (nested tuples, named tuples, lists, dicts) with `change` applied to every tensor."""
    return torch.utils._pytree.tree_map(lambda t: change(t) if isinstance(t, Tensor) else t, value)


def first_tensor(value: Any) -> Tensor:
    """The first tensor inside a nest of tuples, lists and dicts."""
    found = tensors(value)
    if not found:
        raise UsageError(f"inputs: {type(value).__name__}; a tensor, or a tuple or dict of tensors, is needed")
    return found[0]


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(x)`, `model(*tuple)` or `model(**dict)`."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, list | tuple):
        return model(*inputs)
    return model(inputs)


def example_count(targets: Any, inputs: Any) -> int:
    """Number of examples in a batch."""
    known = first_tensor(targets if isinstance(targets, Tensor) and targets.dim() else inputs)
    return len(known) if known.dim() else 1


def source(train: Any) -> Batches:
    """The training set as `Batches`: shuffled here when it can be, in its own order otherwise."""
    return Shuffled(train) if hasattr(train, "order") and hasattr(train, "batch") else Loader(train)
