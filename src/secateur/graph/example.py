"""The example that a network is traced and written on: single rows where rows are examples, else a whole batch.

Whether the first axis of the inputs counts examples is tried out, not assumed: a graph's features and adjacency have a
first axis of nodes, a recurrent layer's may be time, and code may be written for one batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from secateur.errors import UnsupportedError, UsageError, first_line
from secateur.graph.calling import arguments, evaluating, run_eagerly, tensors_of
from secateur.graph.copying import copied

_SAME = 0.9  # of an output's elements must not mind the other rows; rounding may tip a spike here and there
_CLOSE = 1e-4  # of the largest element: what float32 sums in another order may differ by


@dataclass(frozen=True)
class Example:
    """Inputs of a network and what their first axis means.

    Attributes:
        inputs: as the network is called: a tensor, a tuple (positions) or a mapping (keywords).
        batched: rows along axis 0 of every input (numbers aside) are examples that do not know of each other.
        dynamic: is axis 0 left free in the written network? None: where torch's exporter can.
        why: when it is not batched, the reason in words; else empty.
    """

    inputs: Any
    batched: bool
    dynamic: bool | None = None
    why: str = ""

    def few(self, inputs: Any, n: int) -> Any:
        """The first `n` examples of such inputs; all of them where rows are no examples."""
        return tree_map(lambda t: t[:n] if _has_rows(t) else t, inputs) if self.batched else inputs

    @property
    def one(self) -> Any:
        """A single example."""
        return self.few(self.inputs, 1)

    @property
    def note(self) -> str | None:
        """One sentence for the user when the inputs are taken whole."""
        if self.batched:
            return None
        shapes = ", ".join(str(list(t.shape)) for t in tensors_of(self.inputs))
        return f"inputs {shapes} are taken whole as one example, because {self.why}"


def settle(model: nn.Module, inputs: Any, dynamic: bool | None = None, *, cut: int | None = None) -> Example:
    """The example that stands for inputs like these.

    Args:
        model: called in eval mode, without gradients; not changed.
        inputs: one batch as the training data has it, or given by the user.
        dynamic: as `Example.dynamic`.
        cut: take only so many examples where rows are examples; None: all that came.
    Raises:
        UsageError: the model does not run on the inputs, or a free batch axis is asked of inputs that share none.
        UnsupportedError: it keeps state from call to call.
    """
    tensors = tensors_of(inputs)
    if not tensors:
        raise UsageError("example_inputs hold no tensor; give one tensor, a tuple (positions) or a dict (keywords)")
    why, runs = _no_axis(tensors), False
    if why and dynamic:
        raise UsageError(f"dynamic_batch: the inputs share no batch axis, {why}; leave dynamic_batch out")
    if not why:
        why, runs = _tried(copied(model), inputs)  # a model may keep tensors of the size it saw last
    free = dynamic if runs else dynamic or False
    example = Example(inputs, not why, free, why)
    example = example if cut is None else replace(example, inputs=example.few(inputs, cut))
    _check_answers(model, example.inputs)
    return example


def _check_answers(model: nn.Module, inputs: Any) -> None:
    """The model runs, and answers the same twice."""
    with evaluating(model):
        first, second = (tensors_of(run_eagerly(model, *arguments(inputs))) for _ in range(2))
    if len(first) != len(second) or not all(map(_equal, first, second)):
        raise UnsupportedError(
            f"{type(model).__name__} keeps state or draws random numbers in eval mode: it answers the same inputs "
            "differently the second time; set state anew at the start of forward, and let dropout follow self.training"
        )


def _no_axis(tensors: list[Tensor]) -> str:
    sizes = dict.fromkeys(t.shape[0] for t in tensors if t.dim())
    if len(sizes) == 1:
        return ""
    return f"their first axes have {' and '.join(map(str, sizes))} entries" if sizes else "they have no axes"


def _tried(model: nn.Module, inputs: Any) -> tuple[str, bool]:
    """Why rows are no examples (empty when they are), and whether the model runs on other numbers of rows at all.

    The answer to rows 2 and 0 must be what the answer to rows 0, 1 and 2 says of them.
    """
    answers = []
    for rows in ((0, 1, 2), (2, 0)):
        try:
            answer = _answer(model, with_rows(inputs, rows))
        except Exception as e:  # whatever the user's code throws at sizes it does not expect
            return f"{type(model).__name__} does not run on {len(rows)} of their rows ({first_line(e)})", False
        answers.append(answer)
    three, two = answers
    scaling = [(a, b) for a, b in zip(three, two, strict=False) if a.dim() and b.numel() and 2 * len(a) == 3 * len(b)]
    if not scaling or scaling[0][0] is not three[0]:
        return "the output's first axis does not grow with theirs", True
    for a, b in scaling:
        (first, _, third), (again, also) = a.reshape(3, -1), b.reshape(2, -1)
        if not (_alike(third, again) and _alike(first, also)):
            return "each row's output depends on the other rows", True
    return "", True


def _answer(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The tensors that a model answers with in eval mode."""
    args, kwargs = arguments(inputs)
    with evaluating(model):
        return tensors_of(model(*args, **kwargs))


def _alike(x: Tensor, y: Tensor) -> bool:
    x, y = (torch.view_as_real(t) if t.is_complex() else t.double().nan_to_num() for t in (x, y))
    largest = max(float(x.abs().max()), 1e-6) if x.numel() else 0.0
    return not x.numel() or float(((x - y).abs() <= _CLOSE * largest).double().mean()) >= _SAME


def _equal(x: Tensor, y: Tensor) -> bool:
    """Equal but for a few roundings, which sums in parallel may add in another order."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if not (x.is_floating_point() or x.is_complex()):
        return torch.equal(x, y)
    largest = float(x.abs().nan_to_num(0.0, 0.0, 0.0).max()) if x.numel() else 0.0
    return torch.allclose(x, y, rtol=0.0, atol=64 * torch.finfo(x.dtype).eps * largest, equal_nan=True)


def _has_rows(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dim() > 0


def with_rows(inputs: Any, rows: Sequence[int]) -> Any:
    """Inputs with these rows of theirs; counted round where there are fewer, the repeats changed so that they differ.

    Repeated floats are scaled by 0.75, 0.5, ...; repeated integers and booleans hold their row's first entries, each
    two times, three times, ...: in order, and none that the row does not have, for a table's size is not known here.
    """
    return tree_map(lambda t: torch.stack([_row(t, r) for r in rows]) if _has_rows(t) else t, inputs)


def _row(t: Tensor, r: int) -> Tensor:
    again, at = divmod(r, len(t))
    row = t[at]
    if t.is_floating_point() or t.is_complex():
        return row * (1.0 - 0.25 * again)
    axis = next((a for a, size in enumerate(row.shape) if size > 1), None)
    if again == 0 or axis is None:
        return row
    return row.index_select(axis, torch.arange(row.shape[axis], device=t.device) // (again + 1))
