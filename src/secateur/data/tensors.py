"""A data set in memory, handed out in batches: re-iterable, reshuffled by a generator, no workers, no copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from secateur.errors import UsageError

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class TensorData:
    """Pairs (inputs, targets) as batches; iterating again gives the same batches again.

    `inputs` is one tensor, a tuple or a dict of tensors whose first axis counts examples; `targets` has the same
    length. Iteration follows the stored order, or, for what `order` returned, that order. The last batch may be
    short. Nothing the caller passed is copied or changed.

    >>> data = TensorData(torch.arange(5.0)[:, None], torch.arange(5), batch_size=2)
    >>> [y.tolist() for x, y in data], len(data), data.n_examples
    ([[0, 1], [2, 3], [4]], 3, 5)
    >>> g = torch.Generator().manual_seed(0)
    >>> sorted(y for _, ys in data.order(g) for y in ys.tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor],
        targets: Tensor,
        batch_size: int = 128,
        *,
        permutation: Tensor | None = None,
    ) -> None:
        self.inputs: Inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
        self.targets = targets
        self.batch_size = batch_size
        self.permutation = permutation
        parts = _parts(self.inputs)
        if batch_size < 1:
            raise UsageError(f"batch_size: got {batch_size}; at least 1 is needed")
        if not parts or any(p.ndim == 0 for p in parts) or targets.ndim == 0:
            raise UsageError("data: inputs and targets must be tensors whose first axis counts examples")
        if len(targets) == 0:
            raise UsageError("data: the data set is empty; at least one example is needed")
        if any(len(p) != len(targets) for p in parts):
            raise UsageError(f"data: {[len(p) for p in parts]} inputs but {len(targets)} targets; one target per input")

    @property
    def n_examples(self) -> int:
        """Number of examples in one pass."""
        return len(self.targets) if self.permutation is None else len(self.permutation)

    def __len__(self) -> int:
        """Number of batches in one pass."""
        return -(-self.n_examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for i in range(len(self)):
            yield self.batch(i)

    def batch(self, i: int) -> tuple[Inputs, Tensor]:
        """Batch `i`, 0 <= i < len: so that a resumed run can go on in the middle of an epoch."""
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        start, stop = i * self.batch_size, (i + 1) * self.batch_size
        if self.permutation is None:
            return _pick(self.inputs, slice(start, stop)), self.targets[start:stop]
        rows = self.permutation[start:stop]
        return _pick(self.inputs, rows), self.targets[rows]

    def order(self, generator: torch.Generator) -> TensorData:
        """The same examples in an order drawn from `generator`, e.g. one seeded by (seed, epoch); shares memory."""
        drawn = torch.randperm(self.n_examples, generator=generator)
        if self.permutation is not None:
            drawn = self.permutation[drawn]
        return TensorData(self.inputs, self.targets, self.batch_size, permutation=drawn)

    def batched(self, batch_size: int) -> TensorData:
        """The same examples in batches of another size; shares memory."""
        return TensorData(self.inputs, self.targets, batch_size, permutation=self.permutation)

    def head(self, n: int) -> TensorData:
        """The first `n` examples of today's order (all, where there are fewer); shares memory."""
        rows = torch.arange(len(self.targets)) if self.permutation is None else self.permutation
        return TensorData(self.inputs, self.targets, self.batch_size, permutation=rows[:n])


def _parts(inputs: Inputs) -> tuple[Tensor, ...]:
    if isinstance(inputs, Tensor):
        return (inputs,)
    return tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)


def _pick(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, dict):
        return {name: value[rows] for name, value in inputs.items()}
    return tuple(value[rows] for value in inputs)
