"""Normal distributions in the place of weights: the net shows draws, the optimizer moves means, the solver widths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from secateur.solvers._regrow import Support
from secateur.types import Weights

_MEMORY = 100  # steps over which the squared slopes of widths are averaged
_TINY = 1e-30


@dataclass
class Posterior(Support):
    """q(w) = N(mean, sigma^2), sigma = softplus(rho), of some parameters; the others, and all outside a support, are
    points.

    At every step the net shows mean + sigma eps, one draw of eps for the whole batch: a solver has no hand in the
    forward pass, and the local reparametrisation, whose noise is smaller, needs one.

    Attributes:
        mean, rho: the parameters that are not points.
        power: running mean square of the slope along rho.
        scale: root mean square of each parameter at the start, where it is not zero; what widths are told in.
        noise: sigma eps as the net shows it; drawn from the seed and the step, and so never saved.
    """

    mean: dict[str, Tensor] = field(default_factory=dict)
    rho: dict[str, Tensor] = field(default_factory=dict)
    power: dict[str, Tensor] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict, init=False)

    def begin(self, names: Iterable[str], width: float) -> None:
        """The live weights become means, their sigma is `width` in units of `scale`."""
        self.mean = {k: self.live[k].clone() for k in names}
        for k, w in self.mean.items():
            n = int(w.count_nonzero())
            self.scale[k] = float(w.norm()) / n**0.5 if n else 1.0  # of nothing but zeros any unit will do
            self.rho[k] = torch.full_like(w, width * self.scale[k]).expm1().log()
            self.power[k] = torch.zeros_like(w)
        self.draw()

    def sigma(self, name: str) -> Tensor:
        """Standard deviation, also where the weight is away."""
        return softplus(self.rho[name])

    def draw(self) -> None:
        """The net shows a new draw, the same whenever this step is begun."""
        draws, held = torch.Generator().manual_seed(self.problem.seed * 1_000_003 + self.n), self.held()
        for k, w in self.mean.items():
            noise = torch.randn(w.shape, generator=draws).to(w) * self.sigma(k)
            self.noise[k] = noise.masked_fill(~held[k], 0.0) if k in held else noise
        self.show({k: w + self.noise[k] for k, w in self.mean.items()})

    def descend(self, precision: Mapping[str, Tensor | float], kl: float, rate: float) -> None:
        """Widths go down the slope of loss + kl KL(q | N(0, 1/precision)); of the means the KL's slope joins `.grad`.

        d/d sigma = g eps + kl (sigma precision - 1/sigma), g the gradient at what is shown. A step of rho is this over
        its root mean square, and so about `rate`: the slopes of two weights are orders of magnitude apart.
        """
        for k, p in self.problem.params.items():
            if k not in self.mean or p.grad is None:
                continue
            sigma, tau = self.sigma(k), precision[k]
            slope = (p.grad * self.noise[k] / sigma + kl * (sigma * tau - 1 / sigma)) * self.rho[k].sigmoid()
            self.power[k] = self.power[k].lerp(slope.square(), max(1 / (self.n + 1), 1 / _MEMORY))
            self.rho[k] = self.rho[k] - rate * slope / self.power[k].sqrt().clamp(min=_TINY)
            p.grad += kl * tau * self.mean[k]

    def follow(self) -> None:
        """The means make the step that the optimizer has made of the draw."""
        self.hold()
        live = self.live
        self.mean = {k: live[k] - self.noise[k] for k in self.mean}

    def means(self) -> dict[str, Tensor]:
        """Every parameter, without noise."""
        return {**self.live, **self.mean}

    def tracked(self) -> dict[str, Tensor]:
        return self.means()

    def numbers(self) -> dict[str, float]:
        """With the mean sigma, in units of `scale`."""
        widths = [float(self.sigma(k).mean()) / self.scale[k] for k in self.mean]
        return {**super().numbers(), **({"sigma": sum(widths) / len(widths)} if widths else {})}

    def load_state_dict(self, tensors: Weights, facts: dict[str, Any]) -> None:
        super().load_state_dict(dict(tensors), facts)
        self.draw()
