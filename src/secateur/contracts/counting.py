"""What is minimised, and what is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.limits import count
from secateur.types import Inventory, Packing, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective(ABC):
    """One summand of what is minimised."""

    weight: float = 1.0
    needs_teacher: ClassVar[bool] = False
    reference: ClassVar[str] = ""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        """Scalar loss of a batch, before `weight`. `base_loss(outputs, targets)` is the user's task loss."""


@dataclass(frozen=True)
class Meter(ABC):
    """One kind of cost, and all that is known of it. The file's name is the kind in recipes, plans and reports.

    Costs are sums over sites and a part that no level changes; what estimates miss of that is found out by measuring.

    Attributes:
        unit, step: what is counted, in the plural: `bytes`, `nonzeros`; told rounded up to multiples of the step.
        margin: share of a limit kept free until the values are trained, which moves the cost by less. 0: it does not.
        in_file: the packed file alone tells it, else the weights do; by_place: it matters where the kept ones lie.
        lowered_by: fewer bits (`values`), removed `channels`, or single zeros (`weights`): the recipe's default sets.
        on_machine: priced by `Site.prices`, found by running the written file; asked only where a budget names it.
    """

    unit: ClassVar[str] = ""
    margin: ClassVar[float] = 0.0
    in_file: ClassVar[bool] = False
    lowered_by: ClassVar[str] = "weights"
    on_machine: ClassVar[bool] = False
    by_place: ClassVar[bool] = False
    shown: ClassVar[bool] = True  # in every table; else where a budget names it
    step: ClassVar[float] = 1.0

    @abstractmethod
    def cost(self, site: Site, packing: Packing) -> float:
        """Expected cost of one site; of a bias or norm 0 where they do not count."""

    @abstractmethod
    def measure(self, net: Inventory) -> float:
        """The exact cost of a written network, or of the part of it that is given."""

    def reading(self, net: Inventory) -> dict[str, Any]:
        """`measure` as `value`, and what a report says beside it."""
        return {"value": self.measure(net)}

    def parse(self, given: Any) -> float:
        """A limit as a recipe writes it, in base units; ValueError says what is needed. Here: counts, `1.5K`."""
        return count(given)

    def write(self, value: float) -> str:
        """The text that `parse` reads as that value."""
        return f"{round(value, 9):.12g}"

    def least(self, value: float) -> str:
        """For refusals: that no network of these constraints costs less."""
        return f"the smallest network that these constraints give takes {value:.12g} {self.unit}"
