"""Learn from the dense net's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from secateur.contracts import Objective
from secateur.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distillation(Objective):
    """T^2 KL(teacher at temperature T || student at T) on logits, mean over examples; or the mean squared gap.

    T^2 keeps the size of the gradient independent of T. `match="outputs"` is for regression and other outputs that
    are not logits. Hinton et al.'s alpha is the pair of weights: `[{name: task, weight: 0.3}, {name: distillation,
    weight: 0.7}]`.

    Args:
        temperature: T > 0.
        match: `logits` (last axis = classes) or `outputs` (mean squared difference).
    Reference: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, sec. 2.
    """

    temperature: float = 3.0
    match: Literal["logits", "outputs"] = "logits"
    needs_teacher: ClassVar[bool] = True
    reference: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531, sec. 2"

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.match not in ("logits", "outputs"):
            raise UsageError(
                f"objective distillation: temperature={self.temperature}, match={self.match!r}; a temperature > 0 and "
                "match logits or outputs are needed"
            )

    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        """Scalar; outputs and teacher outputs float [batch, ..., classes] (tensor, tuple or dict of them)."""
        from torch.nn import functional as F  # noqa: N812

        pairs = list(_pairs(outputs, teacher_outputs))
        if self.match == "outputs":
            return sum((F.mse_loss(s, t) for s, t in pairs), pairs[0][0].new_zeros(()))
        total = pairs[0][0].new_zeros(())
        for student, teacher in pairs:
            s, t = student.flatten(0, -2) / self.temperature, teacher.flatten(0, -2) / self.temperature
            kl = F.kl_div(F.log_softmax(s, -1), F.log_softmax(t, -1), reduction="batchmean", log_target=True)
            total = total + self.temperature**2 * kl
        return total


def _pairs(student: Any, teacher: Any) -> list[tuple[Tensor, Tensor]]:
    if isinstance(student, dict):
        return [p for k in student for p in _pairs(student[k], teacher[k])]
    if isinstance(student, list | tuple):
        return [p for s, t in zip(student, teacher, strict=True) for p in _pairs(s, t)]
    return [(student, teacher)] if hasattr(student, "flatten") else []  # None and numbers say nothing
