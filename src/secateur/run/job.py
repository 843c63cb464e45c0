"""What one run is asked, and the small questions that all its stages put to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur import graph
from secateur.budget import kinds
from secateur.contracts import Constraint, Term
from secateur.errors import InterruptedRun, UsageError
from secateur.export import kept, membership, sized, written
from secateur.export.membership import Asked
from secateur.export.written import Template, Written
from secateur.graph import activations, counts, factors
from secateur.graph.copying import copied
from secateur.recipe.naming import FAMILIES
from secateur.run import machine, nesting, pace, prices, problem
from secateur.run.aligned import aligned
from secateur.run.nesting import Chain
from secateur.run.net import Net
from secateur.terms import views
from secateur.training import norms
from secateur.training.batches import call, tensors
from secateur.training.loop import Setting
from secateur.training.metrics import evaluating
from secateur.types import Limit, Progress, Stage, Weights

if TYPE_CHECKING:
    from secateur.budget.machine import Machine
    from secateur.budget.purse import Purse
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe


@dataclass(frozen=True)
class Warm:
    """A finished network: its module, and the cuts that made it from the dense one."""

    module: nn.Module
    surgery: tuple[dict[str, Any], ...]


@dataclass
class Job:
    """Everything a run needs; `setting.model` is the working model of the stage under way.

    Attributes:
        dense: the dense net, teacher and start of every attempt; not changed.
        example_inputs: what the net is traced and written on.
        stages: the record of the trainings so far.
        warm: the answer of an earlier run under looser limits, where this one starts.
        untrained: parameters and buffers that attempts begin with instead of the dense net's (`solver.from_scratch`).
        proven: the dense net's file is run beside the net; a plan hands no file out and leaves that to `compress`.
    """

    recipe: Recipe
    setting: Setting
    dense: nn.Module
    example_inputs: Example
    limits: tuple[Limit, ...]
    dense_metric: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    warm: Warm | None = None
    untrained: Weights | None = None
    proven: bool = True

    _pulses: dict[str, tuple[float, int]] = field(default_factory=dict)
    _fits: dict[Constraint, Constraint] = field(default_factory=dict)  # sets with what they take from the dense net

    # ---- the dense net -----------------------------------------------------------------------------------------
    @cached_property
    def start(self) -> Net:
        """The dense net, traced, with the recipe's terms; asked for after the dense training."""
        module, traced = self._traced
        terms = self._fit(self.terms_on(module, traced), module)
        grids = self.recipe.build_activations(traced.sites)  # then biases are rounded to the sums' grids, all digits
        short = self.counts_bytes and not grids
        return Net(module, traced, terms, short=short, machine=self._machine(traced, terms))

    @cached_property
    def _traced(self) -> tuple[nn.Module, Traced]:
        module = copied(self.dense)
        return module, graph.trace(module, self.example_inputs)

    def _machine(self, traced: Traced, terms: tuple[Term, ...]) -> Machine | None:
        """The table behind limits that a machine decides; None without such a limit and without a file of one."""
        asked = [x.kind for x in kinds.metered(self.limits)] or [self.recipe.sought]
        if self.recipe.latency.table is None and not any(kinds.meter(kind).on_machine for kind in asked):
            return None
        began = time.monotonic()

        def told(done: int, total: int) -> None:
            self.check()
            if self.setting.on_progress is not None:
                self.setting.on_progress(Progress("latency", done, total, time.monotonic() - began))

        fact = self.setting.ledger.fact
        net = self.example_inputs, self.dense, traced, terms
        found = machine.machine(lambda: self.dense_onnx, *net, self.recipe, fact, told)
        return replace(found, kinds=tuple(kind for kind in asked if kinds.meter(kind).on_machine) or found.kinds)

    def terms_on(self, module: nn.Module, traced: Traced) -> tuple[Term, ...]:
        """The recipe's terms on a module and its trace.

        Raises:
            UsageError: as `terms_of` and `chain_of`; or a set stores layers as products that the code needs as they
                are.
        """
        terms = self.terms_of(traced)
        self._chain_on(traced)
        in_two = [m.param for t in terms if t.constraint.stage == Stage.FORM for m in t.site.members]
        if in_two and (grids := self.recipe.build_activations(traced.sites)):
            raise UsageError(
                f"constrain: {in_two[0]} is to be stored as two layers, and activations ({next(iter(grids))}) on 8-bit "
                "grids; a net has one of them: leave out the one or the other"
            )
        if whole := factors.whole(module, traced.program, in_two):
            listed = "; ".join(f"{name}: {why}" for name, why in whole.items())
            raise UsageError(f"constrain: layers that cannot be stored as two: {listed}; exclude them")
        return terms

    @cached_property
    def chain(self) -> Chain | None:
        """The levels that can be changed at run time, where the recipe asks for some."""
        return self._chain_on(self.start.traced)

    def _chain_on(self, traced: Traced) -> Chain | None:
        terms = self.recipe.build_terms(*traced.free)
        return nesting.chain_of(terms, self.limits, bool(self.recipe.build_activations(traced.sites)))

    def terms_of(self, traced: Traced) -> tuple[Term, ...]:
        """The recipe's terms on a net: on everything that is not frozen.

        Raises:
            UsageError, ConstraintError: as `Recipe.build_terms`; or all weights are frozen.
        """
        sites, groups = traced.free
        frozen = [s.name for s in traced.sites if s.op not in ("bias", "norm") and s.name in traced.program.frozen]
        if frozen and not any(s.op not in ("bias", "norm") for s in sites):
            raise UsageError(
                f"model: all weights are frozen ({_listed(frozen)}); nothing may be changed, so nothing can be "
                "compressed; call model.requires_grad_(True), or unfreeze the layers to compress"
            )
        try:
            terms = self._as_fitted(nesting.peeled(self.recipe.build_terms(sites, groups)))
            return aligned(terms, traced.program.shapes)
        except UsageError as e:
            kept = [f"frozen layers are left as they are: {_listed(frozen)}"] if frozen else []
            note = counts.held_note(traced, outputs=True) if any(x in str(e) for x in FAMILIES.values()) else None
            raise type(e)("; ".join(filter(None, [str(e), *kept, note]))) from None

    def _fit(self, terms: tuple[Term, ...], module: nn.Module) -> tuple[Term, ...]:
        """The terms with sets that know the dense net; nets cut out of it go by the same."""
        params = {k: p.detach() for k, p in module.named_parameters()}
        for own in dict.fromkeys(t.constraint for t in terms):
            places = [t.site for t in terms if t.constraint == own]
            self._fits[own] = own.fitted(views.matrix(site, own.view, params) for site in places)
        return self._as_fitted(terms)

    def _as_fitted(self, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        return tuple(replace(t, constraint=self._fits.get(t.constraint, t.constraint)) for t in terms)

    @cached_property
    def dense_files(self) -> Written:
        """The dense net, written."""
        return written.write_dense(self.start.module, self.start.traced, self.example_inputs, lambda: self.dense_onnx)

    @cached_property
    def dense_onnx(self) -> bytes:
        """The dense net as it is: of it a machine's table is made, and mostly it is in `dense_files`."""
        plain = copied(self.dense).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if self.proven:
            return written.exported_bytes(plain, self.example_inputs)
        example = self.example_inputs
        return kept.exported(
            plain, self._traced[1], example, lambda: written.exported_bytes(plain, example, check=False)
        )

    @cached_property
    def template(self) -> Template:
        """The dense net's graph, for sizes; and what grids of activations will add to it."""
        asked = self.recipe.build_activations(self.start.traced.sites)
        if not asked or not self.counts_bytes:
            return Template(self.dense_files.onnx)
        made = activations.calls(self.start.module)
        grids = activations.find(made.module, tensors(self.example_inputs.inputs), tuple(asked))
        module = activations.rewrite(made, grids)[0]
        files = written.write(module, graph.trace(module, self.example_inputs), self.example_inputs)
        return Template(self.dense_files.onnx, max(len(files.sct) - len(self.dense_files.sct), 0))

    def take_over(self, other: Job) -> None:
        """What another job has worked out of the very same dense net: its trace, its files, and what was timed.

        A resumed run does not rehearse again: it finds in the ledger what the clock said.
        """
        for name in machine.FACTS:
            known = other.setting.ledger.done(name)
            if known is not None and self.setting.ledger.done(name) is None:
                self.setting.ledger.finish(name, *known)
        self._fits.update(other._fits)
        for name in ("_traced", "start", "dense_onnx", "dense_files", "template"):
            if name in other.__dict__:
                self.__dict__[name] = other.__dict__[name]

    def dense_cost(self, kind: str) -> float:
        """What the dense net costs by one of the metered kinds."""
        return self.start.costs(self.dense_files, [kind])[kind]

    def reduction(self, limits: Sequence[Limit]) -> float:
        """Dense / asked of the tightest metered limit; 1 where there is none."""
        return max((self.dense_cost(x.kind) / x.value for x in kinds.metered(limits)), default=1.0)

    def learning_rate(self, limits: Sequence[Limit], epochs: float) -> float:
        """The recipe's, or what such limits want in so many epochs."""
        return pace.learning_rate(self.recipe.training, self.steps(epochs), self.reduction(limits))

    def paced(self, limits: Sequence[Limit], epochs: float) -> Job:
        """This job with that rate in its recipe; all else is shared."""
        _ = self.template  # made once, for both
        training = self.recipe.training.model_copy(update={"lr": self.learning_rate(limits, epochs)})
        job = copy(self)
        job.recipe = self.recipe.model_copy(update={"training": training})
        return job

    @property
    def unconstrained_nbytes(self) -> int:
        """Bytes of the dense `.sct` file that belong to no constrained tensor: header, graph, biases."""
        names = {m.param for t in self.start.terms for m in t.site.members}
        return sum(sized.sections(self.dense_files.onnx, names, math.inf).values())

    # ---- small questions ---------------------------------------------------------------------------------------
    @property
    def drop_limit(self) -> float | None:
        """The allowed accuracy drop, or None."""
        return next((x.value for x in self.limits if x.kind == kinds.DROP), None)

    @property
    def counts_bytes(self) -> bool:
        """Is the file's size limited, or sought?"""
        asked = {x.kind for x in self.limits}
        sized = {self.recipe.sought} if asked == {kinds.DROP} else asked - {kinds.DROP}
        return any(kinds.meter(kind).in_file for kind in sized)

    def drop(self, metric: float) -> float:
        """Dense minus compressed, in the direction in which worse is positive."""
        gap = self.dense_metric - metric
        return gap if self.setting.higher_is_better else -gap

    def steps(self, epochs: float) -> int:
        """Optimizer steps of so many epochs; at least one when any are asked for."""
        return max(round(epochs * len(self.setting.batches)), 1) if epochs > 0 else 0

    def evaluate(self, module: nn.Module) -> float:
        """The metric on validation."""
        with evaluating(module):
            return float(self.setting.evaluate(module))

    def purse(self, net: Net, limits: Sequence[Limit], name: str = "prices") -> Purse:
        """The budget's prices on `net`; `name` is what their progress is called."""
        return prices.purse(net, limits, self.template, self.told(name))

    def importance(self, net: Net, key: str) -> dict[str, Tensor | None]:
        """Importance outside training: statistics measured on the weights as they are."""
        self.use(net.module)
        needs = self.recipe.build_saliency().needs  # no solver is asked here
        stats = problem.measured(net, self.recipe, self.setting, self.told(f"{key}.inputs"), needs)
        return problem.importance_now(net, self.recipe, stats, self.setting.seed, key, "saliency")

    def outside(self, net: Net, files: Written) -> list[str]:
        """Sites that the written file does not hold in the sets the user named, at the levels given or chosen."""
        named = Asked(tuple(t for t in self.start.terms if t.given), {}, 0)
        asked = [named] if net.asked is None else [named, net.asked]
        return [line for a in asked for line in membership.outside(a, files.onnx, files.surgery, files.arrays)]

    def remeasure(self, module: nn.Module) -> None:
        """Batch-norm statistics of the weights as they are now, in place."""
        if norms.has_norms(module):
            norms.remeasure(module, self.setting.norm_batches)

    # ---- the work under way ------------------------------------------------------------------------------------
    def use(self, module: nn.Module) -> None:
        """`module` is what the stages train and evaluate from now on."""
        if self._channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.setting.model = module

    @cached_property
    def _channels_last(self) -> bool:
        """Do 2-d convolutions run with channels innermost? LeNet-5 trains in 29 ms a step then, in 47 ms without.

        A model that reshapes with `view` may not bear it; one forward pass tells.
        """
        if not any(isinstance(m, nn.Conv2d) for m in self.dense.modules()):
            return False
        trial = copied(self.dense).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            with evaluating(trial):
                call(trial, self.example_inputs.inputs)
        except RuntimeError:
            return False
        return True

    def check(self) -> None:
        """InterruptedRun when the user asked to stop."""
        if self.setting.interrupted():
            raise InterruptedRun(f"interrupted between two stages; {self.setting.ledger.going_on}")

    def told(self, name: str) -> Callable[[], None]:
        """What is called before each costly piece of the work `name`: checks for an interrupt and shows progress."""

        def tell() -> None:
            self.check()
            self.pulse(name)

        return tell

    def pulse(self, stage: str, last: bool = False) -> None:
        """Tell that a piece of work begins which is no step of a training: a projection, a price, a file.

        How many there will be is not known: the total is one more than is done, until the last.
        """
        if self.setting.on_progress is None:
            return
        began, done = self._pulses.get(stage, (time.monotonic(), 0))
        done += last
        self.setting.on_progress(Progress(stage, done, done + (not last), time.monotonic() - began))
        self._pulses[stage] = (began, done + (not last))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
