"""What happens around an optimizer step in each phase of a run: free, approach, held, snap.

All four answer to the same calls, so our loop and the user's own (`Compressor`) drive them alike:
`before_step` after backward, `after_step` after `optimizer.step()`, `span` for the learning-rate round, `candidate`
for the weights to judge, `state_dict` for exact resume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from secateur.contracts import Effective, Problem, Solver, Term
from secateur.errors import CheckError
from secateur.terms import feasible
from secateur.terms.feasible import Levels, as_level
from secateur.terms.frozen import Frozen
from secateur.training import learned
from secateur.types import Solution, Weights

Live = Mapping[str, Tensor]  # parameter name -> the model's own parameter
State = tuple[dict[str, Tensor], dict[str, Any]]


_ZERO = "zero in the beginning: "
_REASSIGNMENTS = 10  # at least so many in a short snap


class Memory(Protocol):
    """Something behind the problem that learns on the way (what the budget costs on disk) and must be resumed."""

    def state(self) -> Any:
        """JSON."""

    def load(self, state: Any) -> None:
        """Exactly as `state` gave it."""


class Zeros:
    """Weights that are zero when a phase begins and stay so: a net that was pruned elsewhere goes on from its zeros.

    Units that a set keeps whole have zeros inside, which its mask would let go. None where `keep` is False.
    """

    def __init__(self, terms: Sequence[Term], params: Live, keep: bool) -> None:
        names = {m.param for t in terms for m in t.site.members} if keep else ()
        self.masks = {k: params[k].detach() == 0 for k in sorted(names)}

    def mask_(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Zero there, in place."""
        for name, zero in self.masks.items():
            if name in tensors:
                tensors[name].masked_fill_(zero, 0.0)
        return tensors

    def beside(self, effective: Effective | None) -> Effective:
        """Which weights can matter when those cannot."""

        def alive(weights: Weights) -> dict[str, Tensor]:
            found = {} if effective is None else dict(effective(weights))
            return {**found, **{k: found[k] & ~zero if k in found else ~zero for k, zero in self.masks.items()}}

        return alive

    def state(self) -> dict[str, Tensor]:
        """Tensors for a resume: later there are more zeros."""
        return {_ZERO + k: zero.to(torch.uint8) for k, zero in self.masks.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """As saved; takes its tensors out of those."""
        self.masks = {k: tensors.pop(_ZERO + k).bool() for k in self.masks}


class Phase:
    """No constraint at all: the dense training. The other phases override what differs."""

    feasible = False  # does the phase start from (and stay at) an answer? then its first point is judged too
    projects = False  # do its points differ from the weights that were trained?

    def __init__(self, params: Live, total_steps: int) -> None:
        self.params, self.total_steps, self.n = params, total_steps, 0
        self.round_changed = False
        self.terms: tuple[Term, ...] = ()

    @property
    def span(self) -> tuple[int, int]:
        """Start and length, in steps, of the present learning-rate round."""
        return 0, self.total_steps

    def penalty(self) -> Tensor | float:
        """Added to the loss."""
        return 0.0

    def before_step(self) -> None:
        """After backward, before the optimizer's step: gradients may be projected."""

    def after_step(self) -> None:
        """After the optimizer's step."""
        self.n += 1

    def numbers(self, point: Mapping[str, Tensor]) -> dict[str, float]:
        """What the curves show beside loss and metric."""
        names = {m.param for t in self.terms for m in t.site.members if m.param in point}
        n = sum(point[k].numel() for k in names)
        return {"sparsity": 1.0 - sum(int(point[k].count_nonzero()) for k in names) / n} if n else {}

    def close(self) -> dict[str, Any]:
        """After the last step: facts for the record (levels, residuals)."""
        return {}

    def tracked(self) -> dict[str, Tensor]:
        """The tensors that weight averaging follows."""
        return {k: p.detach() for k, p in self.params.items()}

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The feasible point that belongs to `weights` (live or averaged): what is evaluated and kept."""
        return dict(weights)

    def state_dict(self) -> State:
        """Tensors and JSON for an exact resume."""
        return {}, {"n": self.n}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Exactly as saved; the parameters must have been restored before."""
        self.n = int(facts["n"])


class Approach(Phase):
    """The solver's phase: towards the sets.

    Constrained weights that are zero at the start and are to stay so (`keep_zeros`) cannot matter, so that no solver
    spends the budget on them, and what it writes there goes.
    """

    projects = True

    def __init__(
        self, solver: Solver, problem: Problem, memory: Memory | None = None, keep_zeros: bool = False
    ) -> None:
        super().__init__(problem.params, problem.total_steps)
        self._zeros = Zeros(problem.terms, problem.params, keep_zeros)
        self.solver, self.memory = solver, memory
        self.problem = replace(problem, effective=self._zeros.beside(problem.effective)) if keep_zeros else problem
        self.terms = problem.terms
        self._final: Frozen | None = None
        self.state = solver.init(self.problem)
        self._zeros.mask_(_data(self.params))

    @property
    def span(self) -> tuple[int, int]:
        return self.state.span

    def penalty(self) -> Tensor | float:
        return self.solver.penalty(self.state)

    def before_step(self) -> None:
        self._zeros.mask_(_grads(self.params))
        self.solver.before_step(self.state)

    def after_step(self) -> None:
        self.n += 1
        self._zeros.mask_(_data(self.params))  # an optimizer that was in use before has moments
        self.state = self.solver.step(self.state)
        self._zeros.mask_(_data(self.params))
        self.round_changed = self.state.round_changed

    def close(self) -> dict[str, Any]:
        solution = self.solver.finish(self.state)
        self._zeros.mask_(solution.weights)
        write(self.params, self.terms, solution)
        self._final = Frozen(self.terms, solution.levels, _data(self.params), self.problem.companions)
        return {
            "levels": solution.levels,
            "residuals": solution.residuals,
            "outcome": solution.outcome,
            "memory": self.memory.state() if self.memory else None,
        }

    def tracked(self) -> dict[str, Tensor]:
        return self.state.tracked() if self._final is None else super().tracked()

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # On the way: at the present tightness. At the end: inside the final structure, averaged weights too.
        out = {k: v.clone() for k, v in weights.items()}
        if self._final is not None:
            self._final.apply_(out)
            return out
        return self._zeros.mask_({**out, **self.state.candidate(out)})

    def numbers(self, point: Mapping[str, Tensor]) -> dict[str, float]:
        return {**super().numbers(point), **self.state.numbers()}

    def state_dict(self) -> State:
        tensors, facts = self.state.state_dict()
        facts = {"n": self.n, "solver": facts, "memory": self.memory.state() if self.memory else None}
        return {**tensors, **self._zeros.state()}, facts

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n = int(facts["n"])
        self._zeros.load(tensors)
        if self.memory is not None:
            self.memory.load(facts["memory"])
        self.state.load_state_dict(tensors, facts["solver"])


class Held(Phase):
    """Masked retraining: gradients and steps stay inside the linear piece through the weights at the start.

    `companions` says what must stay zero with channels that are (their biases and norms), here and in `Snap`;
    `keep_zeros` that weights stay so which are zero inside what a set keeps whole.
    """

    feasible = projects = True

    def __init__(
        self,
        terms: tuple[Term, ...],
        levels: Levels,
        params: Live,
        total_steps: int,
        companions: Effective | None = None,
        keep_zeros: bool = False,
    ) -> None:
        super().__init__(params, total_steps)
        self.terms, self.levels, self.companions = terms, levels, companions
        self.frozen = Frozen(terms, levels, _data(params), companions)
        self._zeros = Zeros(terms, params, keep_zeros)

    def before_step(self) -> None:
        # Masked weights get no gradient, so that their moments stay at zero.
        self.frozen.mask_(_grads(self.params))
        self._zeros.mask_(_grads(self.params))

    def after_step(self) -> None:
        self.n += 1
        self.frozen.apply_(_data(self.params))
        self._zeros.mask_(_data(self.params))

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The average of points of a piece lies in it up to rounding; this removes the rounding.
        out = {k: v.clone() for k, v in weights.items()}
        self.frozen.apply_(out)
        return out

    def state_dict(self) -> State:
        return {**self.frozen.anchor, **self._zeros.state()}, {"n": self.n}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n = int(facts["n"])
        self._zeros.load(tensors)
        self.frozen = Frozen(self.terms, self.levels, {**_data(self.params), **tensors}, self.companions)


class Snap(Phase):
    """Straight-through training of values: the forward pass sees members of the sets, the steps move latent weights.

    The parameters hold the member Q; after the optimizer moved Q by d, the latent weights W become W + d inside the
    support, and Q = projection of W: a full one every `every` steps, in between what the piece of the last one makes
    of the step (`Piece.advance`: values move, weights drift slowly; new codes of a uniform grid). After `loose` of the
    steps the assignment is frozen and the rest is masked retraining in that piece (tied clusters).

    `scales` names parameters that are step sizes of activations, learned (`learned.py`). `keep_zeros` holds those that
    were zero before the snap and are zero in it.
    """

    feasible = projects = True

    def __init__(
        self,
        terms: tuple[Term, ...],
        levels: Levels,
        params: Live,
        total_steps: int,
        companions: Effective | None = None,
        every: int = 20,
        loose: float = 0.6,
        scales: Iterable[str] = (),
        keep_zeros: bool = False,
    ) -> None:
        super().__init__(params, total_steps)
        self._zeros = Zeros(terms, params, keep_zeros)
        self.scales = {k: params[k].detach() for k in scales}
        self._before = {k: s.clone() for k, s in self.scales.items()}
        self.terms, self.levels, self.companions = terms, levels, companions
        self.freeze_at = round(loose * total_steps)
        self.every = max(min(every, self.freeze_at // _REASSIGNMENTS), 1)
        names = {m.param for t in terms for m in t.site.members}
        self.latent = {k: p.detach().clone() for k, p in params.items() if k in names}
        support_terms, support_levels = feasible.support_only(terms, levels)
        self.support = Frozen(support_terms, support_levels, _data(params))
        self.gone = Frozen((), {}, _data(params), companions)
        self._assign()
        for name, zero in self._zeros.masks.items():  # values without a zero move them
            zero &= self.member[name] == 0

    @property
    def loose(self) -> bool:
        """Does the assignment still change?"""
        return self.n < self.freeze_at

    def before_step(self) -> None:
        self.support.mask_(_grads(self.params))
        self.gone.mask_(_grads(self.params))
        self._zeros.mask_(_grads(self.params))
        self._before = {k: s.clone() for k, s in self.scales.items()}

    def after_step(self) -> None:
        self.n += 1
        learned.step_(self.scales, self._before)
        live = _data(self.params)
        self.gone.mask_(live)
        self._zeros.mask_(live)
        if self.n > self.freeze_at:
            self.frozen.apply_(live)
            return
        near = self.frozen.advance_(self.latent, self.member, live, self.freeze_at)
        self.support.apply_(self.latent)
        if self.n % self.every == 0 or self.n == self.freeze_at:
            self._assign()
        else:
            self._show(near)

    def tracked(self) -> dict[str, Tensor]:
        if not self.loose:
            return super().tracked()
        return {**super().tracked(), **self.latent}

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Projected as a whole: the set may round its values (16-bit centres), which the piece does not know.
        return {**weights, **feasible.project(self.terms, self.levels, weights)}

    def state_dict(self) -> State:
        tensors = {f"latent.{k}": v for k, v in self.latent.items()}
        tensors |= {f"anchor.{k}": v for k, v in self.frozen.anchor.items()}
        tensors |= {f"support.{k}": v for k, v in self.support.anchor.items()}
        tensors |= self._zeros.state()
        return tensors, {"n": self.n, "levels": self.levels}

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.n = int(facts["n"])
        self.levels = {k: as_level(v) for k, v in facts["levels"].items()}
        self._zeros.load(tensors)
        live = _data(self.params)
        part = {
            kind: {k.removeprefix(f"{kind}."): v for k, v in tensors.items() if k.startswith(f"{kind}.")}
            for kind in ("latent", "anchor", "support")
        }
        for k, v in part["latent"].items():
            self.latent[k].copy_(v)
        support_terms, support_levels = feasible.support_only(self.terms, self.levels)
        self.support = Frozen(support_terms, support_levels, {**live, **part["support"]})
        self.gone = Frozen((), {}, live, self.companions)
        self.frozen = Frozen(self.terms, self.levels, {**live, **part["anchor"]})
        self.member = {k: live[k].clone() for k in self.latent}

    def _assign(self) -> None:
        near = feasible.project(self.terms, self.levels, {**_data(self.params), **self.latent})
        self.frozen = Frozen(self.terms, self.levels, {**_data(self.params), **near})
        self._show(near)

    def _show(self, near: Mapping[str, Tensor]) -> None:
        live = _data(self.params)
        for k in self.latent:
            live[k].copy_(near[k])
        self.member = {k: live[k].clone() for k in self.latent}


def write(params: Live, terms: Sequence[Term], answer: Solution) -> None:
    """Put an answer into the live parameters, in place. It may name any of them, whether a term acts there or not.

    Raises:
        CheckError: it names what is no parameter, or would leave a site outside its set; nothing is written then.
    """
    if strangers := sorted(answer.weights.keys() - params.keys()):
        raise CheckError(f"{strangers[0]}: an answer's weights are parameters of the network, this is none of them")
    touched = [t for t in terms if any(m.param in answer.weights for m in t.site.members)]
    if outside := feasible.contains(touched, answer.levels, {**_data(params), **answer.weights}):
        raise CheckError(
            f"{outside[0]}: an answer's weights are members of their sets, these are not at level "
            f"{answer.levels[outside[0]]}; project them before they are written"
        )
    for name, value in answer.weights.items():
        params[name].data.copy_(value)


def _data(params: Live) -> dict[str, Tensor]:
    return {k: p.detach() for k, p in params.items()}


def _grads(params: Live) -> dict[str, Tensor]:
    # A parameter that the loss does not reach has no gradient; the optimizer skips it.
    return {k: p.grad if p.grad is not None else torch.zeros_like(p) for k, p in params.items()}
