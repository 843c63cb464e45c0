"""A `Compressor` behind a trainer's hooks: what the callbacks of all trainers have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.api.own_loop import Compressor, State
from secateur.api.result import Result
from secateur.recipe import Recipe

_LOWEST = 0.05  # of the first learning rate, at the end of a round


class Driven:
    """What a callback is asked for, and the four moments at which a trainer calls it.

    Args:
        recipe: a Recipe, a mapping or a path, as of `Compressor`.
        example_inputs: a tensor, a tuple (positions) or a dict (keywords).
        evaluate: `model -> metric`, higher is better; without it the last point is the answer.
        calibration: some batches of inputs, for solvers, saliencies and activations that are measured.
        budget: overrides the recipe's.
        restart: when a round of the solver or a phase ends, the learning rate starts again where it began and falls
            linearly to the end of the training; False leaves it to the trainer's own schedule.
    """

    def __init__(
        self,
        recipe: Recipe | Mapping[str, Any] | str | Path,
        example_inputs: Any,
        *,
        evaluate: Callable[[nn.Module], float] | None = None,
        calibration: Iterable[Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        restart: bool = True,
    ) -> None:
        self.recipe = Recipe.of(recipe, budget)  # a mistake is found before anything is trained
        self._example, self._evaluate, self._calibration, self._restart = example_inputs, evaluate, calibration, restart
        self.compressor: Compressor | None = None
        self._n, self._total, self._began = 0, 0, 0

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, total_steps: int, saved: State | None) -> None:
        """Before the first step; `saved` is what `state` gave, where the trainer goes on from a checkpoint."""
        # A Compressor may move weights when it is made; what the trainer has restored is what counts.
        restored = None if saved is None else copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        self._optimizer, self._total = optimizer, total_steps
        self._first = [float(g.get("initial_lr", g["lr"])) for g in optimizer.param_groups]
        self.compressor = Compressor(
            model,
            self.recipe,
            self._example,
            optimizer=optimizer,
            total_steps=total_steps,
            evaluate=self._evaluate,
            calibration=self._calibration,
        )
        if saved is not None and restored is not None:
            model.load_state_dict(restored[0])
            optimizer.load_state_dict(restored[1])
            self._n, self._began = int(saved["n"]), int(saved["began"])
            self.compressor.load_state_dict(saved["compressor"])

    def before_step(self) -> None:
        """Gradients are there: the penalty adds its own, and a new round has its own learning rate."""
        assert self.compressor is not None
        penalty = self.compressor.penalty()
        if isinstance(penalty, Tensor) and penalty.requires_grad:
            penalty.backward()  # type: ignore[no-untyped-call]
        if self._restart and self._began:
            left = 1.0 - (self._n - self._began) / (self._total - self._began)
            for group, first in zip(self._optimizer.param_groups, self._first, strict=True):
                group["lr"] = first * max(_LOWEST, left)

    def after_step(self) -> None:
        """The optimizer has stepped."""
        assert self.compressor is not None
        self.compressor.step()
        self._n += 1
        if self.compressor.round_changed:
            self._began = self._n

    def state(self) -> State:
        """For the trainer's checkpoint: tensors, numbers, strings, lists and mappings of these."""
        assert self.compressor is not None
        return {"n": self._n, "began": self._began, "compressor": self.compressor.state_dict()}

    def end(self, folder: Path | None) -> Result:
        """Projected, cut and packed; written to `folder` if there is one."""
        assert self.compressor is not None
        result = self.compressor.finalize()
        if folder is not None:
            result.save(folder)
        return result
