"""Metrics: fractions on a fixed set of examples, the model in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur.errors import UsageError
from secateur.training.batches import Batch, call, example_count, pair

Evaluate = Callable[[nn.Module], float]
BINS = 15  # of the calibration error, as in Guo et al.
IGNORED = -100  # the target that cross-entropy leaves out by default


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modes of all modules come back after."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Accuracy:
    """model -> fraction of targets whose class has the largest score; `scores` adds what accuracy alone can hide.

    As cross-entropy counts: scores float [batch, classes, ...] with the classes on axis 1, targets either class
    indices int [batch, ...] (those equal to `IGNORED` are not counted) or probabilities of the scores' own shape
    (right is their most likely class).

    Attributes:
        batches: re-iterable of (inputs, targets).
    """

    batches: Iterable[Batch]

    def __call__(self, model: nn.Module) -> float:
        return self.scores(model)["accuracy"]

    def scores(self, model: nn.Module) -> dict[str, float]:
        """`accuracy`, `loss` (mean cross-entropy) and `calibration_error`, all over the same targets.

        calibration_error = sum over bins of |confidence - accuracy| x share of the targets, with confidence the
        largest softmax probability, in `BINS` bins of equal width: the expected calibration error of Guo et al., ICML
        2017, arXiv:1706.04599, eq. 3. Loss and calibration error are left out where a score is not finite.

        Raises:
            UsageError: scores and targets that do not belong together, or nothing to count.
        """
        right = torch.zeros(BINS, dtype=torch.float64)
        sure, seen = torch.zeros_like(right), torch.zeros_like(right)
        loss = 0.0
        with evaluating(model):
            for inputs, targets in (pair(batch, "valid") for batch in self.batches):
                scores, classes = _counted(call(model, inputs), targets)
                loss += float(cross_entropy(scores, classes, reduction="sum"))
                confidence, guess = scores.softmax(1).max(1)
                meant = classes if classes.dim() == 1 else classes.argmax(1)
                hit = ((guess == meant) & confidence.isfinite()).cpu()
                # Bin i holds (i / BINS, (i + 1) / BINS]; what is not finite is counted as wrong, in the first bin.
                place = (confidence * BINS).ceil().nan_to_num(0).long().clamp(1, BINS).sub(1).cpu()
                seen += torch.bincount(place, minlength=BINS)
                right += torch.bincount(place[hit], minlength=BINS)
                sure.index_add_(0, place, confidence.double().cpu())
        total = float(seen.sum())
        if not total:
            raise UsageError("validation data: no targets to count; at least one is needed")
        found = {"accuracy": float(right.sum()) / total}
        more = {"loss": loss / total, "calibration_error": float((sure - right).abs().sum()) / total}
        return found | (more if all(map(math.isfinite, more.values())) else {})


def accuracy(batches: Iterable[Batch]) -> Accuracy:
    """model -> fraction of targets whose class has the largest score."""
    return Accuracy(batches)


def scored(evaluate: Evaluate, model: nn.Module) -> tuple[float, dict[str, float]]:
    """The metric, and what else the same pass tells about it (empty for a metric of the caller's own)."""
    if not isinstance(evaluate, Accuracy):
        return float(evaluate(model)), {}
    scores = evaluate.scores(model)
    return scores.pop("accuracy"), scores


def _counted(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Scores [n, classes] and class indices [n], or probabilities [n, classes], of the targets that count."""
    told = [
        f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        for t in (outputs, targets)
    ]
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.dim() > 1:
        flat = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
        if targets.is_floating_point() and targets.shape == outputs.shape:
            return flat, targets.movedim(1, -1).reshape(flat.shape)
        if not targets.is_floating_point() and targets.shape == outputs[:, 0].shape:
            kept = (targets != IGNORED).flatten()
            return flat[kept], targets.flatten()[kept].long()
    raise UsageError(
        "evaluate: accuracy needs class scores [batch, classes, ...] with class indices [batch, ...] or probabilities "
        f"of the scores' shape; got scores {told[0]} and targets {told[1]}; pass evaluate=, a callable model -> float"
    )


def mean_loss(batches: Iterable[Batch], loss: Callable[[Any, Any], Tensor]) -> Evaluate:
    """model -> mean of the task loss per example."""

    def measure(model: nn.Module) -> float:
        total, seen = 0.0, 0
        with evaluating(model):
            for inputs, targets in (pair(batch, "valid") for batch in batches):
                n = example_count(targets, inputs)
                total += float(loss(call(model, inputs), targets)) * n
                seen += n
        if seen == 0:
            raise UsageError("validation data: no examples; at least one is needed")
        return total / seen

    return measure
