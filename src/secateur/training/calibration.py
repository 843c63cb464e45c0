"""What is known of a weight: one registry of statistics, kept while training goes on or measured on some batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from secateur.contracts import FROM_LOSS
from secateur.training.inputs import Inputs

_MOVED = "moved: "  # in a checkpoint, beside the running means


class Statistics:
    """What is known of each weight, by the names of `contracts.STATISTICS`: `statistics(site, name)`.

    Gradients: Adam's own running means (bias corrected) when the optimizer keeps them; else a running mean of squared
    gradients that `observe` feeds; before the first steps, what a calibration measured. Inputs: measured when asked.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        squares: Mapping[str, Tensor] | None = None,
        means: Mapping[str, Tensor] | None = None,
        inputs: Inputs | None = None,
        found: Mapping[str, Mapping[str, Tensor]] | None = None,
        moving: bool = False,
    ) -> None:
        self._params, self._inputs, self._found = params, inputs, found or {}
        self.optimizer: torch.optim.Optimizer | None = None
        self._squares, self._means = dict(squares or {}), dict(means or {})
        self.running: dict[str, Tensor] = {}
        # Before any step as if the calibration had been one that moves nothing.
        self.moved = {k: -params[k].detach() * g for k, g in self._means.items() if k in params} if moving else {}
        self._moving = moving
        self._decay = 0.99
        self._n = 0

    def __call__(self, site: str, name: str) -> Tensor | None:
        """The statistic of a parameter; None while it is not known yet."""
        return _MEASURED[name](self, site)

    def before_step(self) -> None:
        """After backward, before the optimizer's step: movement is of the weights that the gradient was taken at."""
        for name, p in self._params.items() if self._moving else ():
            if p.grad is not None:
                gain = -p.detach() * p.grad.detach()
                self.moved[name] = self.moved[name] + gain if name in self.moved else gain

    def observe(self) -> None:
        """After backward and step: keep a running mean where the optimizer keeps none."""
        if self.optimizer is None or any("exp_avg_sq" in s for s in self.optimizer.state.values()):
            return
        self._n += 1
        for name, p in self._params.items():
            if p.grad is not None:
                g2 = p.grad.detach().square()
                if name in self.running:
                    self.running[name].mul_(self._decay).add_(g2, alpha=1 - self._decay)
                else:
                    self.running[name] = g2 * (1 - self._decay)

    def second_moment(self, name: str) -> Tensor | None:
        """Running mean of squared gradients, shape of the parameter; None before anything is known."""
        state = self._state(name)
        if state is not None and "exp_avg_sq" in state and float(state["step"]) >= 1:
            beta = self._group(name)["betas"][1]
            return state["exp_avg_sq"] / (1 - beta ** float(state["step"]))  # type: ignore[no-any-return]
        if name in self.running:
            return self.running[name] / (1 - self._decay**self._n)
        return self._squares.get(name)

    def gradient(self, name: str) -> Tensor | None:
        """A recent gradient: Adam's mean where there is one, else the last one."""
        state = self._state(name)
        if state is not None and "exp_avg" in state:
            return state["exp_avg"]  # type: ignore[no-any-return]
        grad = self._params[name].grad
        return self._means.get(name) if grad is None else grad.detach()

    def input_norm(self, name: str) -> Tensor | None:
        """Root of the mean, over examples, of the summed squares of what each weight is multiplied with."""
        return self._seen.norm(name)

    def input_gram(self, name: str) -> Tensor | None:
        """2 X X^T of the layer as it runs now, a mean over examples."""
        return self._seen.gram(name)

    def movement(self, name: str) -> Tensor | None:
        """-sum of w g over the steps so far; None before the first."""
        return self.moved.get(name)

    def before_training(self, name: str, statistic: str) -> Tensor | None:
        """One of `contracts.FROM_LOSS`, as it was found."""
        return self._found[statistic].get(name)

    @property
    def _seen(self) -> Inputs:
        assert self._inputs is not None, "a run that needs inputs is given some"
        return self._inputs

    def learning_rate(self) -> float:
        """Of the optimizer's first group; 0 before it exists."""
        return 0.0 if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])

    def _state(self, name: str) -> dict[str, Tensor] | None:
        if self.optimizer is None:
            return None
        return self.optimizer.state.get(self._params[name])

    def _group(self, name: str) -> dict[str, Any]:
        assert self.optimizer is not None
        target = self._params[name]
        return next(g for g in self.optimizer.param_groups if any(p is target for p in g["params"]))

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors and counters."""
        return {**self.running, **{_MOVED + k: v for k, v in self.moved.items()}}, {"n": self._n}

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, int]) -> None:
        """Exactly as saved."""
        kept = {k: v.clone() for k, v in tensors.items()}
        self.moved = {k.removeprefix(_MOVED): kept.pop(k) for k in list(kept) if k.startswith(_MOVED)}
        self.running, self._n = kept, int(facts["n"])


def gradient_moments(
    params: Mapping[str, Tensor], backward: Callable[[], bool], n_batches: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean of squared and of plain batch gradients over up to `n_batches`; weights do not move.

    Args:
        backward: runs one batch's forward and backward; False when there is none left.
    """
    squares = {k: torch.zeros_like(p) for k, p in params.items()}
    means = {k: torch.zeros_like(p) for k, p in params.items()}
    n = 0
    for p in params.values():
        p.grad = None
    while n < n_batches and backward():
        n += 1
        for k, p in params.items():
            if p.grad is not None:
                squares[k] += p.grad.detach().square()
                means[k] += p.grad.detach()
                p.grad = None
    for total in (squares, means):
        torch._foreach_div_(list(total.values()), max(n, 1))
    return squares, means


# One entry for each name of `contracts.STATISTICS`, which recipes are checked against.
_MEASURED: dict[str, Callable[[Statistics, str], Tensor | None]] = {
    "second_moment": Statistics.second_moment,
    "gradient": Statistics.gradient,
    "input_norm": Statistics.input_norm,
    "input_gram": Statistics.input_gram,
    "movement": Statistics.movement,
    **{name: partial(Statistics.before_training, statistic=name) for name in sorted(FROM_LOSS)},
}
