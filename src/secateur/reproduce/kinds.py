"""What a study's task is: the loss it trains with, what is counted on held-out data, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.training.metrics import Evaluate


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Attributes:
        measure: what is counted: `accuracy`, `mse`, `bits_per_character` or `map` (mean average precision).
        unit, scale: how a value is written: `scale` times the value, then `unit`.
        targets: what a batch must look like, in words.
        fits: does a batch (inputs, targets) look so?
    """

    about: str
    measure: str
    targets: str
    fits: Callable[[Any, Any], bool]
    unit: str = "%"
    scale: float = 100.0

    @property
    def higher_is_better(self) -> bool:
        """Of the measure."""
        return self.measure in ("accuracy", "map")

    @property
    def numbers(self) -> bool:
        """Does a net answer with numbers that all count, and not with scores of which the largest does?"""
        return self.measure in ("mse", "map")

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The task loss."""
        from torch.nn.functional import cross_entropy, mse_loss

        from secateur.zoo.detection import detection_loss

        if self.measure == "map":
            return detection_loss
        return mse_loss if self.measure == "mse" else cross_entropy

    def judge(self, part: Iterable[Any]) -> Evaluate:
        """Network -> the measure on this part."""
        from torch.nn.functional import cross_entropy, mse_loss

        from secateur.training import metrics

        if self.measure == "mse":
            return metrics.mean_loss(part, mse_loss)
        if self.measure == "accuracy":
            return metrics.accuracy(part)
        if self.measure == "map":
            return lambda model: _precision(model, part)
        nats = metrics.mean_loss(part, cross_entropy)
        return lambda model: nats(model) / math.log(2)

    def select(self, part: Iterable[Any]) -> Evaluate:
        """Network -> mean loss on this part: by it the epoch that is kept is chosen, lower is better.

        Accuracy on 5,000 examples has a standard error of 0.13 points and would often pick an early epoch.
        """
        from secateur.training import metrics

        return metrics.mean_loss(part, self.loss())

    def check(self, batch: Any, subject: str) -> None:
        """UsageError where a batch is of another kind."""
        from secateur.training.batches import pair, tensors

        inputs, targets = pair(batch, subject)
        if not tensors(targets) or not self.fits(inputs, targets):
            shapes = [" ".join(str(list(t.shape)) for t in tensors(x)) or "none" for x in (inputs, targets)]
            raise UsageError(
                f"{subject}: task {self.about} needs {self.targets}; inputs {shapes[0]}, targets {shapes[1]} came; "
                "name another task or other data"
            )


def _precision(model: Any, part: Iterable[Any]) -> float:
    """Mean average precision of the detector's boxes."""
    import torch

    from secateur.training.batches import call, pair
    from secateur.training.metrics import evaluating
    from secateur.zoo.detection import average_precision

    with evaluating(model):
        seen = [(call(model, x), y) for x, y in (pair(batch, "data") for batch in part)]
    return average_precision([raw for answers, _ in seen for raw in answers], torch.cat([y for _, y in seen]))


def _whole(targets: Any) -> bool:
    return not targets.is_floating_point()


def _rank(inputs: Any) -> int:
    return int(inputs.dim()) if hasattr(inputs, "dim") else 0


KINDS: dict[str, Kind] = {
    "classification": Kind(
        "classification",
        "accuracy",
        "one class for each example: whole numbers [n]",
        lambda x, y: _whole(y) and y.dim() == 1,
    ),
    "regression": Kind(
        "regression",
        "mse",
        "numbers as targets: float [n, ...]",
        lambda x, y: not _whole(y),
        unit="",
        scale=1.0,
    ),
    "language": Kind(
        "language",
        "bits_per_character",
        "whole numbers [n, length] as inputs and, one further, as targets",
        lambda x, y: _rank(x) == 2 and _whole(x) and _whole(y) and x.shape == y.shape,
        unit="bits",
        scale=1.0,
    ),
    "detection": Kind(
        "detection",
        "map",
        "pictures [n, 3, h, w] and boxes [n, most, 5]: class, left, top, right, bottom; class -1 where there is none",
        lambda x, y: _rank(x) == 4 and not _whole(y) and y.dim() == 3 and y.shape[-1] == 5,
    ),
    "nodes": Kind(
        "nodes",
        "accuracy",
        "(features, adjacency) of a whole graph and one class for each node, -100 where it is not asked",
        lambda x, y: isinstance(x, tuple | list) and len(x) == 2 and _whole(y) and y.dim() == 1 and len(x[0]) == len(y),
    ),
    "sequences": Kind(
        "sequences",
        "accuracy",
        "steps on axis 1 of the inputs [n, length, ...] and a class for each sequence [n] or step [n, length]",
        lambda x, y: _rank(x) >= 2 and _whole(y) and tuple(y.shape) in {tuple(x.shape[:1]), tuple(x.shape[:2])},
    ),
    "spiking": Kind(
        "spiking",
        "accuracy",
        "pictures [n, c, h, w], or time steps of them [n, steps, c, h, w], and one class for each",
        lambda x, y: _rank(x) in (4, 5) and _whole(y) and y.dim() == 1,
    ),
}
