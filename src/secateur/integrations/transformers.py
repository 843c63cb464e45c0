"""Compress while `transformers.Trainer` trains.

>>> # from secateur.integrations.transformers import SecateurCallback
>>> # callback = SecateurCallback("recipe.yaml", example_inputs={"input_ids": ids, "attention_mask": mask})
>>> # Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
>>> # callback.result  # also written to args.output_dir/secateur
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from secateur.api.result import Result
from secateur.errors import MissingExtraError, UsageError
from secateur.integrations._driven import Driven
from secateur.shell import saving

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as e:
    raise MissingExtraError(
        f"secateur.integrations.transformers: needs {e.name}, which is not installed; "
        "pip install 'secateur[transformers]'"
    ) from None

_STATE = "secateur.pt"


class SecateurCallback(TrainerCallback):  # type: ignore[misc]
    """A `Compressor` behind the trainer's hooks.

    Args:
        recipe, example_inputs: as of `Compressor`.
        options: `evaluate`, `calibration`, `budget` as of `Compressor`; `restart=False` leaves the learning rate to the
            trainer's own schedule, else it starts again with every round of the solver and every phase.

    `result` is there when the training has ended, and its files lie in `output_dir/secateur`. A checkpoint holds the
    compressor's state; `train(resume_from_checkpoint=...)` ends in the same bits as a run that was not cut.
    """

    def __init__(self, recipe: Any, example_inputs: Any, **options: Any) -> None:
        self._driven = Driven(recipe, example_inputs, **options)
        self.result: Result | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the compressor, or go on with a checkpoint's."""
        optimizer = kwargs["optimizer"]
        while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
            optimizer = inner  # accelerate wraps it; hooks belong on the one that steps
        saved = None
        if state.global_step > 0:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / _STATE
            if not path.exists():
                raise UsageError(
                    f"SecateurCallback: {path}: missing; the checkpoint was written without this callback, so the "
                    "levels that it had reached are not known: start the training anew"
                )
            saved = torch.load(path, weights_only=True)
        self._driven.begin(kwargs["model"], optimizer, state.max_steps, saved)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The penalty's gradient, after clipping."""
        self._driven.before_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The compressor's step."""
        self._driven.after_step()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The compressor's state beside the trainer's."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            held = io.BytesIO()
            torch.save(self._driven.state(), held)
            saving.write_bytes(folder / _STATE, held.getvalue())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The compressed network."""
        folder = Path(args.output_dir) / "secateur" if state.is_world_process_zero else None
        self.result = self._driven.end(folder)
