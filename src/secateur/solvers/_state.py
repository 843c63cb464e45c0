"""What every solver's state carries: steps, stages, levels, the structure that is held, exact resume.

A solver file is then its mathematics: it derives a state with the tensors and numbers of its own, or takes this one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.contracts import Problem
from secateur.solvers._stages import Stage, plan
from secateur.terms.feasible import Importance, as_level
from secateur.terms.frozen import Frozen
from secateur.terms.live import project_live
from secateur.types import Level, Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class State:
    """A `contracts.SolverState`. Every field of a derived state is saved and restored: a dict of tensors, or JSON.

    Attributes:
        plan: the stages; () = one stage over all steps.
        n: optimizer steps done.
        levels, residuals: of the last projection; residuals are |w - z| / |w| per parameter.
        frozen: the structure that steps are put back into; None before the first `land`.
    """

    unsaved: ClassVar[frozenset[str]] = frozenset({"problem", "plan", "round_changed", "frozen"})

    problem: Problem
    plan: tuple[Stage, ...] = ()
    n: int = 0
    round_changed: bool = False
    levels: dict[str, Level] = field(default_factory=dict)
    residuals: dict[str, float] = field(default_factory=dict)
    frozen: Frozen | None = None

    def __post_init__(self) -> None:
        self.plan = self.plan or plan(1, (), self.problem.total_steps)

    # ---- steps and stages --------------------------------------------------------------------------------------
    @property
    def stage(self) -> Stage:
        """The stage that step n belongs to."""
        return next((s for s in self.plan if self.n < s.start + s.length), self.plan[-1])

    @property
    def span(self) -> tuple[int, int]:
        """Start and length of the present learning-rate round: a stage."""
        return self.stage.start, self.stage.length

    def advance(self) -> None:
        """Count an optimizer step."""
        self.n += 1
        self.round_changed = self.n == self.stage.start and self.stage.length > 0

    # ---- weights -----------------------------------------------------------------------------------------------
    @property
    def live(self) -> dict[str, Tensor]:
        """The parameters, free of autograd; writing into them changes the net."""
        return {k: p.detach() for k, p in self.problem.params.items()}

    def project(
        self, tightness: float, weights: Weights | None = None, importance: Importance | None = None
    ) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """Levels and nearest members of the live weights; of `weights` where they are given.

        Args:
            importance: the solver's own; None: the problem's.
        """
        p, at = self.problem, {**self.live, **(weights or {})}
        h = p.importance() if importance is None else importance
        return project_live(p.terms, p.allocate, at, h, tightness, p.effective, p.companions)

    def land(self, tightness: float, weights: Weights | None = None) -> None:
        """Set the live weights to their projection, or to that of `weights`, and freeze the structure found."""
        live = self.live
        self.levels, near = self.project(tightness, weights)
        self.residuals |= gaps({**live, **(weights or {})}, near)
        self.show({**(weights or {}), **near})
        self.freeze(live)

    def show(self, weights: Weights) -> None:
        """Copy `weights` into the live ones."""
        live = self.live
        for name, value in weights.items():
            live[name].copy_(value)

    def freeze(self, weights: Weights) -> None:
        """Hold the structure that `weights`, members at today's levels, have."""
        self.frozen = Frozen(self.problem.terms, self.levels, weights, self.problem.companions)

    def hold(self) -> None:
        """Put the live weights back into the structure that is held, if any."""
        if self.frozen is not None:
            self.frozen.apply_(self.live)

    def solution(self, outcome: str = "converged") -> Solution:
        """The live weights as the answer."""
        weights = {k: w.clone() for k, w in self.live.items()}
        return Solution(weights, dict(self.levels), outcome, dict(self.residuals))

    # ---- what the loop asks ------------------------------------------------------------------------------------
    def tracked(self) -> dict[str, Tensor]:
        """What weight averaging follows: the live weights."""
        return self.live

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """`weights` inside the structure that is held."""
        out = {k: v.clone() for k, v in weights.items()}
        if self.frozen is not None:
            self.frozen.apply_(out)
        return out

    def numbers(self) -> dict[str, float]:
        """For the curves: how far the weights were from their sets."""
        return {"primal_residual": max(self.residuals.values())} if self.residuals else {}

    # ---- exact resume ------------------------------------------------------------------------------------------
    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Every field: tensors as `field.parameter`, the rest as JSON; and what the structure was frozen at."""
        tensors = {f"frozen.{k}": v for k, v in self.frozen.anchor.items()} if self.frozen else {}
        facts: dict[str, Any] = {"held": self.frozen is not None}
        for name in self._saved:
            value = getattr(self, name)
            if isinstance(value, dict) and any(hasattr(v, "dtype") for v in value.values()):
                tensors |= {f"{name}.{k}": v for k, v in value.items()}
            else:
                facts[name] = dict(value) if isinstance(value, dict) else value
        return tensors, facts

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Exactly as saved; the parameters must have been restored before."""
        parts: dict[str, dict[str, Tensor]] = {}
        for full, tensor in tensors.items():
            name, _, key = full.partition(".")
            parts.setdefault(name, {})[key] = tensor
        for name in self._saved:
            value = parts[name] if name in parts else facts[name]
            setattr(self, name, {k: as_level(v) for k, v in value.items()} if isinstance(value, dict) else value)
        self.frozen = None
        if facts["held"]:
            self.freeze({**self.live, **parts.get("frozen", {})})

    @property
    def _saved(self) -> list[str]:
        return [f.name for f in fields(self) if f.init and f.name not in self.unsaved]


def gaps(weights: Weights, near: Weights) -> dict[str, float]:
    """|w - z| / |w| per parameter of `near`; 0 where w is all zero."""
    norms = {k: float(weights[k].norm()) for k in near}
    return {k: float((weights[k] - z).norm()) / norms[k] if norms[k] else 0.0 for k, z in near.items()}
