"""Training of one set of weights whose masked parts are nets of their own: every step one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from secateur.terms.frozen import Frozen
from secateur.training.phases import Live, Phase, State


class Alternate(Phase):
    """Every step shows and trains one level of the weights: gradients and steps stay inside its support.

    The tightest level, which is the newest, has every other step, the others share the rest by turns. The parameters
    hold the weights of the level whose turn it is, `full` those of the loosest one, of which the others are parts. A
    weight outside the level waits as it is.

    Args:
        rungs: the supports, from loose to tight, each inside the one before.
    Reference: AST, NeurIPS 2022 (alternating sparse training), without its regrowth.
    """

    feasible = projects = True

    def __init__(self, rungs: Sequence[Frozen], params: Live, total_steps: int) -> None:
        super().__init__(params, total_steps)
        self.rungs, self.terms = rungs, ()
        self.full = {k: p.detach().clone() for k, p in params.items()}
        self._show()

    @property
    def rung(self) -> Frozen:
        """The level whose turn it is."""
        looser = len(self.rungs) - 1
        return self.rungs[self.n // 2 % looser if looser and self.n % 2 == 0 else -1]

    def before_step(self) -> None:
        # Masked weights get no gradient, so that the moments of what waits only fade.
        masks = self.rung.masks
        for k, p in self.params.items():
            if p.grad is not None and k in masks:
                p.grad.mul_(masks[k])

    def after_step(self) -> None:
        masks = self.rung.masks
        for k, p in self.params.items():
            now = p.detach()
            self.full[k].copy_(now.where(masks[k] != 0, self.full[k]) if k in masks else now)
        self.n += 1
        self._show()

    def tracked(self) -> dict[str, Tensor]:
        return {k: v.clone() for k, v in self.full.items()}

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loosest level, of which all others are parts."""
        out = {k: v.clone() for k, v in weights.items()}
        self.rungs[0].mask_(out)
        return out

    def state_dict(self) -> State:
        return {f"full.{k}": v for k, v in self.full.items()}, {"n": self.n}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n = int(facts["n"])
        for k, v in self.full.items():
            v.copy_(tensors[f"full.{k}"])
        self._show()

    def _show(self) -> None:
        """The weights of the level whose turn it is, in the parameters."""
        masks = self.rung.masks
        for k, p in self.params.items():
            p.detach().copy_(self.full[k] * masks[k] if k in masks else self.full[k])
