"""What a `Compressor` measures on the data that the user gives it: the loop is the user's, there is no training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from secateur.contracts import FROM_INPUTS, FROM_LOSS, TRIAL
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.training import metrics, ranks, seeds, sensitivity
from secateur.training.batches import call
from secateur.training.inputs import Inputs
from secateur.training.trial import BATCHES, Trial

Loss = Callable[[Any, Any], Tensor]


class Given:
    """Batches of inputs in their order, with no targets; a training set without steps."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._inputs = inputs

    def __len__(self) -> int:
        return 0

    def epoch(self, *key: int | str, skip: int = 0) -> Iterator[Any]:
        """The batches, whatever the key."""
        return ((inputs, None) for inputs in self._inputs)


class First:
    """The inputs of batches `(inputs, targets)`."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return (inputs for inputs, _ in self._batches)


def inputs(model: nn.Module, recipe: Recipe, given: Iterable[Any] | None, also: Sequence[str] = ()) -> Inputs | None:
    """What measures the layers' inputs; UsageError where a method needs it and nothing, or an iterator, is given.

    Args:
        given: re-iterable of some batches of inputs.
        also: what else needs them, as a sentence's beginning.
    """
    wanted = [f"solver or saliency needs {name}, which is" for name in sorted(recipe.needs & FROM_INPUTS)]
    wanted += also
    if wanted:
        if given is None:
            raise UsageError(
                f"Compressor: the recipe's {wanted[0]} measured on data, and the loop is yours: give calibration=, "
                "some batches of inputs"
            )
        _check_again(given)
    return None if given is None else Inputs(model, lambda: given)


def of_loss(
    model: nn.Module, recipe: Recipe, given: Iterable[Any] | None, loss: Loss | None
) -> dict[str, dict[str, Tensor]]:
    """What the recipe's methods ask to know of the loss, measured now; of several processes the mean.

    Args:
        given: re-iterable of some batches `(inputs, targets)`.
    """
    wanted = sorted(recipe.needs & FROM_LOSS)
    if not wanted:
        return {}
    if loss is None or given is None:
        raise UsageError(
            f"Compressor: the recipe's solver or saliency needs {wanted[0]}, which is measured of the loss before the "
            "first step, and the loop is yours: give loss=, as compress takes it, and calibration=, some batches of "
            "(inputs, targets)"
        )
    _check_again(given)
    with metrics.evaluating(model):
        found = sensitivity.measured(
            wanted,
            {k: p for k, p in model.named_parameters() if p.is_floating_point()},
            lambda batch: loss(call(model, batch[0]), batch[1]),
            lambda: given,
            seeds.generator(recipe.seed, "calibrate", "signs"),
        )
        return {name: {k: ranks.mean(t) for k, t in of.items()} for name, of in found.items()}


def trial(model: nn.Module, recipe: Recipe, given: Iterable[Any] | None, loss: Loss | None) -> Trial | None:
    """Other weights in the model judged by their loss, on the first batches; None where no solver asks for it.

    Of several processes rank 0's, or each would go its own way.

    Args:
        given: re-iterable of some batches `(inputs, targets)`.
    """
    if TRIAL not in recipe.needs:
        return None
    if loss is None or given is None:
        raise UsageError(
            f"Compressor: solver {recipe.solver['name']} tries other weights by their training loss, and the loop is "
            "yours: give loss=, as compress takes it, and calibration=, some batches of (inputs, targets)"
        )
    _check_again(given)

    def mean() -> float:
        losses = [float(loss(call(model, inputs), targets)) for inputs, targets in islice(given, BATCHES)]
        if not losses:
            raise UsageError("Compressor: calibration is empty; some batches of (inputs, targets) are needed")
        return ranks.agreed(sum(losses) / len(losses), next(model.parameters()))

    return Trial(model, mean)


def _check_again(given: Iterable[Any]) -> None:
    if iter(given) is given:
        raise UsageError("Compressor: calibration can be iterated only once; give a list of batches")
