"""The learning rate where the recipe names none: careful with many steps, up to three times that with few.

A cut moves weights a certain way, and Adam's way in a step is about the learning rate. Measured in
docs/design/default-recipe.md.
"""

from __future__ import annotations

import math

from secateur.recipe.sections import CAREFUL, Training
from secateur.report.advice import MILD

STEPS_PER_HALVING = 400  # optimizer steps that the careful rate wants for each halving of the size
_MOST = 3.0


def learning_rate(training: Training, steps: int, rate: float) -> float:
    """The rate for a reduction `rate` = dense / asked in so many optimizer steps.

    That of `training` where it names one. SGD has no scale of its own: its rate stays, as it does for mild reductions.

    Args:
        steps: of all stages. rate: of the tightest limit; 1 where no size is limited.
    """
    if training.lr is not None or training.optimizer == "sgd" or rate < MILD or not steps:
        return training.learning_rate
    return CAREFUL * min(_MOST, max(1.0, STEPS_PER_HALVING * math.log2(rate) / steps))
