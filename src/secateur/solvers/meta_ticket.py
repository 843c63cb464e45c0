"""Meta-ticket: which weights of a net that stands still should a few steps of training have? Episodes learn it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from secateur import schedules
from secateur.contracts import Problem
from secateur.errors import UsageError
from secateur.solvers._masks import Masked, Masks, levelled
from secateur.solvers._regrow import period
from secateur.solvers._stages import plan
from secateur.types import Solution


@dataclass(frozen=True)
class MetaTicket(Masked):
    """A mask over weights that do not train, by episodes: adapt on some batches, learn the mask on the next one.

    The weights W stand still for the first `settle` of the steps. An episode is `inner` steps W' <- W' - alpha g, g the
    gradient at W' under the mask, from W on, each on a batch of its own; on one batch more the scores learn,
    m += -g W', straight through the mask as in `scl`, and the weights go back. Then the ticket, the mask on W, is
    trained as nets are, with a learning rate of its own. It is made for `from_scratch`; of a trained net it asks which
    of its weights a few steps repair best. One task alone does not give back the steps that the search takes: digits,
    from scratch, 4 % of the weights left, 28 epochs in all, one seed: 90.3 %, one-shot of the untrained net 92.3 %.

    An episode is made of inner + 1 batches as the training data give them: with one training set that are fresh
    draws of it. Where the data give the batches of one task after another (classes, as in the paper), those are the
    tasks. The gradient is that of first order, an option of the paper: what it leaves out wants a second gradient on
    the batch before. The scores learn from each episode, not from four at a time. The budget is the threshold, so that
    the number of weights is given and does not come of itself, and scores begin at the logarithm of the saliency's
    h w^2, not at random.

    Args:
        rate: how far m, a logarithm, goes in the whole search where the gain stays at its parameter's root mean square.
        inner: steps of an episode before the one in which the scores learn; 0: none adapts.
        alpha: learning rate of these steps, of plain descent.
        every: episodes between two choices of the mask; None: 100, and fewer where a ramp would hold less than ten.
        ramp: share of the steps in which the tightness rises, by the cubic schedule.
        settle: share of the steps that the search has, below 1.
    Reference: Chijiwa et al., Meta-ticket, NeurIPS 2022, arXiv:2205.15619.
    """

    inner: int = 1
    alpha: float = 0.3
    settle: float = 0.3
    ramp: float = 0.2
    reference: ClassVar[str] = "Chijiwa et al., Meta-ticket, NeurIPS 2022, arXiv:2205.15619"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner < 0 or self.alpha < 0 or self.settle >= 1:
            raise UsageError(
                f"solver meta_ticket: inner={self.inner}, alpha={self.alpha}, settle={self.settle}; inner >= 0, "
                "alpha >= 0 and settle < 1 needed"
            )

    def init(self, problem: Problem) -> _State:
        """Nothing is pruned and nothing learned."""
        stages = plan((self.settle, 1.0), (self.settle, 1.0 - self.settle), problem.total_steps)
        state = _State(problem, stages)
        state.begin()
        state.fixed = dict(state.latent)
        if state.search == 0:  # a run of a step or none
            self._choose(state)
            state.show(state.shown({}))
        return state

    def before_step(self, state: Any) -> None:
        """In the search: a step of the weights of an episode, or at its end one of the scores."""
        if state.n >= state.search:
            return
        grads = {k: p.grad for k, p in state.problem.params.items() if p.grad is not None}
        if state.n % (self.inner + 1) == self.inner:
            self.learn(state, {k: -state.latent[k] * grads[k] for k in state.learned if k in grads}, {})
            return
        moved = {k: self.alpha * grads[k] if k in grads else 0.0 * w for k, w in state.latent.items()}
        if state.frozen is not None:
            state.frozen.mask_(moved)
        state.latent = {k: w - moved[k] for k, w in state.latent.items()}

    def learn(self, state: Masks, gains: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
        """m += rate / episodes * gain over the gains' root mean square."""
        speed = self.rate * (self.inner + 1) / state.plan[0].length
        for k, g in levelled(gains).items():
            state.learned[k] = state.learned[k] + speed * g

    def step(self, state: Any) -> _State:
        """The search takes no step of the optimizer, and chooses a mask when it is time; the ticket takes them all."""
        searches = state.n < state.search
        state.advance()
        if searches:
            if state.n == state.search or state.n % (self.inner + 1) == 0:
                self._choose(state)
            state.show(state.shown({}))
        else:
            state.hold()
        return state  # type: ignore[no-any-return]

    def finish(self, state: Any) -> Solution:
        """The ticket, trained as far as it is; where the search has not ended, untrained."""
        if state.n < state.search:
            state.land(1.0, state.fixed)
        return state.solution()  # type: ignore[no-any-return]

    def _choose(self, state: _State) -> None:
        """The weights go back; a new mask when it is time."""
        state.latent = state.fixed
        ramp = max(min(round(self.ramp * state.problem.total_steps), state.search), 1)
        episode, last = state.n // (self.inner + 1), state.n == state.search
        if last or episode % period(self.every, ramp / (self.inner + 1)) == 0:
            state.choose(1.0 if last else schedules.get("cubic")(min(state.n / ramp, 1.0)))


@dataclass
class _State(Masks):
    """`fixed` are the weights that stand still; `latent`, in the search, those that an episode has adapted."""

    fixed: dict[str, Tensor] = field(default_factory=dict)

    @property
    def search(self) -> int:
        """Steps of the search."""
        return self.plan[0].length

    def tracked(self) -> dict[str, Tensor]:
        return self.fixed if self.n < self.search else self.live
