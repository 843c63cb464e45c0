"""Straight-through: the net shows members, the optimizer's steps go to dense weights behind them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from secateur.solvers._state import State
from secateur.types import Weights


@dataclass
class Latent(State):
    """Dense weights W behind the live ones, which are E W: W inside the structure that is held.

    Attributes:
        latent: W, every parameter.
        sad: sparse architecture divergence, the Hamming distance of a support and the one before it over their size: an
            average over the last supports.
    """

    latent: dict[str, Tensor] = field(default_factory=dict)
    sad: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.latent = self.latent or {k: w.clone() for k, w in self.live.items()}

    def follow(self) -> None:
        """The dense weights make the step that the optimizer has made of the live ones."""
        live, held = self.live, self.candidate(self.latent)
        self.latent = {k: w + (live[k] - held[k]) for k, w in self.latent.items()}

    def pull(self, strength: float) -> Tensor | float:
        """strength <(1 - E) W, E W>: zero, and its gradient is the decay strength (1 - E) W of what is not shown."""
        held, p = self.candidate(self.latent), self.problem.params
        return strength * sum((((w - held[k]) * p[k]).sum() for k, w in self.latent.items()), 0.0)

    def shown(self, members: Weights, memory: int = 1) -> None:
        """Hold the structure of `members`, and show W in it; `sad` is averaged over about `memory` such changes."""
        before = {} if self.frozen is None else self.frozen.masks
        self.freeze({**self.latent, **members})
        assert self.frozen is not None
        after = self.frozen.masks
        moved = sum(int((after[k] != before[k]).sum()) for k in after.keys() & before.keys())
        now = moved / max(sum(m.numel() for m in after.values()), 1)
        self.sad += (now - self.sad) / memory
        self.show(self.candidate(self.latent))

    def tracked(self) -> dict[str, Tensor]:
        return self.latent

    def numbers(self) -> dict[str, float]:
        """With the distance of supports."""
        return {**super().numbers(), "sad": self.sad}
