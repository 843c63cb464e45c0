"""Compress while a Lightning `Trainer` trains.

>>> # from secateur.integrations.lightning import SecateurCallback
>>> # callback = SecateurCallback("recipe.yaml", example_inputs=torch.zeros(2, 1, 28, 28), module="net")
>>> # Trainer(max_epochs=8, callbacks=[callback]).fit(module, loader)
>>> # callback.result.save("runs/small")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.api.result import Result
from secateur.errors import MissingExtraError, UsageError
from secateur.integrations._driven import Driven

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as e:
        raise MissingExtraError(
            f"secateur.integrations.lightning: needs {e.name}, which is not installed; "
            "pip install 'secateur[lightning]'"
        ) from None


class SecateurCallback(Callback):  # type: ignore[misc]
    """A `Compressor` behind the trainer's hooks.

    Args:
        recipe, example_inputs: as of `Compressor`.
        options: `evaluate`, `calibration`, `budget` as of `Compressor`; `restart=False` leaves the learning rate to the
            trainer's own schedule, else it starts again with every round of the solver and every phase.
        module: name of the network inside the LightningModule, whose forward takes `example_inputs`; not needed where
            it has one child with weights only.
        folder: where the result's files are written; None: nowhere, `result` holds them.
    """

    def __init__(
        self, recipe: Any, example_inputs: Any, *, module: str | None = None, folder: Path | None = None, **options: Any
    ) -> None:
        self._driven = Driven(recipe, example_inputs, **options)
        self._module, self._folder = module, folder
        self._saved: dict[str, Any] | None = None
        self._seen = 0
        self.result: Result | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the compressor, or go on with a checkpoint's."""
        if len(trainer.optimizers) != 1:
            raise UsageError(f"SecateurCallback: {len(trainer.optimizers)} optimizers; one is needed")
        total = trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UsageError("SecateurCallback: a training without an end; give the Trainer max_epochs or max_steps")
        self._seen = trainer.global_step
        self._driven.begin(self._net(pl_module), trainer.optimizers[0], int(total), self._saved)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """The penalty's gradient."""
        self._driven.before_step()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The compressor's step, where the optimizer made one."""
        if trainer.global_step > self._seen:
            self._seen = trainer.global_step
            self._driven.after_step()

    def state_dict(self) -> dict[str, Any]:
        """For the trainer's checkpoint."""
        return self._driven.state() if self._driven.compressor is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the training starts."""
        self._saved = state_dict or None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The compressed network."""
        self.result = self._driven.end(self._folder if trainer.is_global_zero else None)

    def _net(self, owner: nn.Module) -> nn.Module:
        if self._module is not None:
            return owner.get_submodule(self._module)
        children = [name for name, child in owner.named_children() if any(True for _ in child.parameters())]
        if len(children) != 1:
            raise UsageError(
                f"SecateurCallback: {type(owner).__name__} holds {', '.join(children) or 'no module'} with weights; "
                "say which is the network: module='NAME'"
            )
        return owner.get_submodule(children[0])
