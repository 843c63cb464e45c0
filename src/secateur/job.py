"""One run's stages in order: dense, approach, cut, polish, snap, trim; and the same for the one-shot baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur import catalog, feasible, formats, graph, membership, spending, views, written
from secateur.contracts import Constraint, Saliency, Solver
from secateur.copying import copied
from secateur.counts import sizes as sizes
from secateur.errors import BudgetError, CheckError, ConstraintError, InterruptedRun, UsageError
from secateur.membership import Asked
from secateur.spending import Spending
from secateur.training import norms, optimizers, seeds
from secateur.training.batches import call, pair
from secateur.training.loop import Outcome, Setting, Stage, combined_loss, load_weights, train
from secateur.training.metrics import evaluating
from secateur.training.phases import Approach, Held, Phase, Snap
from secateur.types import Level, Limit, Problem, Progress, Site, Term, Weights
from secateur.written import Template, Written

if TYPE_CHECKING:
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe

_CALIBRATION_BATCHES = 20
_TRIMS = 4
_TRIM_SHARE = 0.1  # of the epochs, for each re-training after a last trim
_SUPPORTS_THAT_SHRINK = ("topk", "rows")


@dataclass
class Net:
    """A network on its way: module, trace, terms with their levels, the cuts made so far, and what was asked of it."""

    module: nn.Module
    traced: Traced
    terms: tuple[Term, ...]
    levels: dict[str, Level] = field(default_factory=dict)
    surgery: list[dict[str, Any]] = field(default_factory=list)
    asked: Asked | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The live parameters, detached."""
        return {k: p.detach() for k, p in self.module.named_parameters()}

    @property
    def may_cut(self) -> bool:
        """Do all support sets survive the removal of channels? N:M groups would be shifted by it."""
        parts = [c for t in self.terms for c, _ in t.constraint.split(None) if c.kind == "support"]
        return {_name(c) for c in parts} <= set(_SUPPORTS_THAT_SHRINK)


@dataclass
class Candidate:
    """A finished answer: the net, its files, its metric on validation, what one-shot gave before any retraining."""

    name: str
    net: Net
    files: Written
    metric: float
    raw: dict[str, Any]
    stages: list[dict[str, Any]]
    outcome: str = "converged"

    @property
    def nbytes(self) -> int:
        """Bytes of the `.sct` file."""
        return len(self.files.sct)

    def cost(self, kind: str) -> float:
        """What the answer costs by one of the metered kinds."""
        return float(sizes(self.files.module, self.net.traced, len(self.files.sct))[kind])


@dataclass
class Job:
    """Everything a run needs; `setting.model` is the working model of the stage under way.

    Attributes:
        dense: the dense net, teacher and start of every attempt; not changed.
        example_inputs: what the net is traced and written on.
    """

    recipe: Recipe
    setting: Setting
    dense: nn.Module
    example_inputs: Example
    limits: tuple[Limit, ...]
    dense_metric: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)

    _pulses: dict[str, tuple[float, int]] = field(default_factory=dict)

    # ---- small questions ---------------------------------------------------------------------------------------
    def drop(self, metric: float) -> float:
        """Dense minus compressed, in the direction in which worse is positive."""
        gap = self.dense_metric - metric
        return gap if self.setting.higher_is_better else -gap

    @property
    def drop_limit(self) -> float | None:
        """The allowed accuracy drop, or None."""
        return next((x.value for x in self.limits if x.kind == "accuracy_drop"), None)

    def dense_cost(self, kind: str) -> float:
        """What the dense net costs by one of the metered kinds."""
        files = self.dense_files
        return float(sizes(files.module, self.start.traced, len(files.sct))[kind])

    def evaluate(self, module: nn.Module) -> float:
        """The metric on validation."""
        with evaluating(module):
            return float(self.setting.evaluate(module))

    def steps(self, epochs: float) -> int:
        """Optimizer steps of so many epochs; at least one when any are asked for."""
        return max(round(epochs * len(self.setting.batches)), 1) if epochs > 0 else 0

    @cached_property
    def start(self) -> Net:
        """The dense net, traced, with the recipe's terms; asked for after the dense training."""
        module = copied(self.dense)
        traced = graph.trace(module, self.example_inputs)
        return Net(module, traced, self.terms_of(traced))

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
            return self.recipe.build_terms(sites, groups)
        except UsageError as e:
            if not frozen:
                raise
            raise UsageError(f"{e}; frozen layers are left as they are: {_listed(frozen)}") from None

    @cached_property
    def dense_files(self) -> Written:
        """The dense net, written."""
        return written.write(self.start.module, self.start.traced, self.example_inputs)

    @cached_property
    def template(self) -> Template:
        """The dense net's graph, for sizes."""
        return Template(self.dense_files.onnx)

    @property
    def unconstrained_nbytes(self) -> int:
        """Bytes of the dense `.sct` file that belong to no constrained tensor: header, graph, biases."""
        names = {m.param for t in self.start.terms for m in t.site.members}
        return sum(s.nbytes for s in formats.sections(self.dense_files.sct) if s.name.removesuffix(".T") not in names)

    def step_once(self) -> None:
        """One forward and backward pass of the dense net, for timing; nothing changes."""
        batch = next(self.setting.batches.epoch(self.setting.seed, "timing", 0))
        with seeds.isolated():
            net = copied(self.dense)
            self._use(net)
            task = catalog.load("objectives", "task")()
            combined_loss(self.setting, [task], 0.0, *batch).backward()  # type: ignore[no-untyped-call]
            self._use(self.dense)

    # ---- stages ------------------------------------------------------------------------------------------------
    def train_dense(self, epochs: float, training: Any) -> None:
        """Train the dense net itself."""
        self._use(self.dense)
        phase = Phase(self.setting.params, self.steps(epochs))
        task = catalog.load("objectives", "task")()
        outcome = self._train(Stage("dense", phase, training, [task]))
        self._log("dense", outcome, epochs)

    def settle_dense(self) -> None:
        """The dense net is final: evaluation mode, and the teacher where an objective asks for one."""
        self._use(self.dense)
        self.dense.eval()
        objectives = [*self.recipe.build_objectives(), *self.recipe.build_objectives(polish=True)]
        if any(o.needs_teacher for o in objectives):
            self.setting.teacher = self.dense

    def attempt(self, name: str, solver: Solver, start: Net, limits: Sequence[Limit], epochs: float) -> Candidate:
        """One way from `start` to a written net that meets the metered `limits`.

        Args:
            name: prefix of the stages' names in the ledger.
            start: not changed.
        Raises:
            BudgetError: the limits cannot be met; `smallest` is the nearest reachable size.
        """
        log_from = len(self.stages)
        net = replace(start, module=copied(start.module), surgery=list(start.surgery))
        purse = self.purse(net, limits, f"{name}.prices")
        plan = plan_phases(self.recipe, solver, net.terms)
        self.pulse(f"{name}.prices")
        h = self.importance(net, name)
        purse.set_out(net.weights)
        purse.probe(net.weights, h)
        if plan.approach > 0 or solver.instant:
            net, purse = self._legs(name, solver, net, purse, epochs * plan.approach)
        raw = self._fit(name, net, purse)
        net = self._cut(net)
        if plan.polish > 0:
            self._held(f"{name}.polish", net, epochs * plan.polish)
        if feasible.has_values(net.terms):
            self._snap(f"{name}.snap", net, epochs * plan.snap)
        net, files = self._finish(name, net, purse, epochs)
        metric = self._remember(f"{name}.metric", lambda: self.evaluate(files.module))
        return Candidate(name, net, files, metric, raw, self.stages[log_from:])

    def _legs(self, name: str, solver: Solver, net: Net, purse: Spending, epochs: float) -> tuple[Net, Spending]:
        """The approach, leg by leg; between two legs dead units are removed, so that later legs run faster."""
        legs = solver.legs() if net.may_cut else ((solver, 1.0, 0.0, 1.0),)
        for i, (leg, share, low, high) in enumerate(legs):
            purse.low, purse.high = low, high
            label = f"{name}.approach" if len(legs) == 1 else f"{name}.approach{i + 1}"
            self._approach(label, leg, net, purse, epochs * share)
            if i < len(legs) - 1:
                net, purse = self._narrow(net, purse)
        purse.low, purse.high = 0.0, 1.0
        return net, purse

    def _narrow(self, net: Net, purse: Spending) -> tuple[Net, Spending]:
        """The same terms on the physically smaller net, the budget's way unchanged."""
        self.remeasure(net.module)
        small, cut = graph.shrink(net.module, net.traced)
        traced = graph.trace(small, self.example_inputs)
        before = {t.site.name: t for t in net.terms}
        terms = tuple(
            replace(t, level=before[t.site.name].level) if t.given and t.site.name in before else t
            for t in self.terms_of(traced)
        )
        narrow = Net(small, traced, terms, surgery=[*net.surgery, cut])
        cheaper = self.purse(narrow, purse.limits, "narrow.prices")
        cheaper.fixed, cheaper.probed = dict(purse.fixed), purse.probed
        cheaper.begin = purse.begin or purse.free_cost(net.weights)
        return narrow, cheaper

    def _approach(self, name: str, solver: Solver, net: Net, purse: Spending, epochs: float) -> None:
        self._use(net.module)
        params = self.setting.params
        training = self.recipe.training
        calibrated = self._calibrate(net, name)
        stats = optimizers.Statistics(params, calibrated[0], calibrated[1])
        saliency, terms = self.recipe.build_saliency(), support_terms(net.terms)
        values_too = not terms and solver.moves_values
        started: list[Approach] = []

        def importance() -> dict[str, Tensor | None]:
            at = started[0].n if started else 0  # a solver may ask inside init()
            g = seeds.generator(self.setting.seed, name, "saliency", at)
            return importance_of(net.terms, net.weights, saliency, stats, g)

        problem = Problem(
            params=dict(params),
            terms=net.terms if values_too else terms,
            allocate=purse.levels if values_too else purse.support_levels,
            total_steps=self.steps(epochs),
            importance=importance,
            effective=net.traced.effective,
            companions=net.traced.kept if _has_channels(net.terms) else None,
            second_moment=stats.second_moment,
            gradient=stats.gradient,
            learning_rate=stats.learning_rate,
            examples=self._batch_size,
            adaptive=training.optimizer != "sgd",
            seed=self.setting.seed,
        )
        with torch.no_grad():
            phase = Approach(solver, problem, purse)
        started.append(phase)
        if problem.total_steps == 0:
            phase.close()
            return
        stage = Stage(
            name,
            phase,
            training,
            self.recipe.build_objectives(),
            keep_best=False,
            statistics=stats,
        )
        outcome = self._train(stage)
        if "memory" in outcome.facts:
            purse.load(outcome.facts["memory"])
        self._log(stage.name, outcome, epochs)

    def _fit(self, name: str, net: Net, purse: Spending) -> dict[str, Any]:
        """Final levels from today's weights, tightened until the written file fits; the support becomes final."""
        h = self.importance(net, f"{name}.fit")
        weights = {k: w.clone() for k, w in net.weights.items()}
        found: dict[str, Any] = {}

        def write_at(levels: Mapping[str, Level]) -> spending.Costs:
            self._check()
            self.pulse(f"{name}.fit")
            near = self.project(net, levels, weights, h)
            full = {**weights, **near}
            full |= feasible.project(net.terms, levels, full)
            small = written.smaller(net.module, net.traced, full, net.may_cut)[0].eval()
            cost = sizes(small, net.traced, self.template.nbytes(small, net.terms))
            found.update(near=near, sizes=cost, levels=dict(levels))
            return cost

        levels = purse.fit(weights, h, write_at)
        if found.get("levels") != levels:
            write_at(levels)
        load_weights(net.module, found["near"])
        net.levels = dict(levels)
        self.remeasure(net.module)  # a cut folds constants by these statistics
        if net.asked is None:  # trims come later: they tighten terms that a cut has rewritten
            net.asked = Asked(net.terms, dict(levels), len(net.surgery))
        self.pulse(f"{name}.fit", last=True)
        metric = self._remember(f"{name}.raw", lambda: self.evaluate(self.written_now(net, found["near"])))
        return {"metric": metric, **found["sizes"]}

    def remeasure(self, module: nn.Module) -> None:
        """Batch-norm statistics of the weights as they are now, in place."""
        if norms.has_norms(module):
            norms.remeasure(module, self.setting.norm_batches)

    def written_now(self, net: Net, weights: Weights) -> nn.Module:
        """The network that would be written, before any training, in evaluation mode."""
        full = {**net.weights, **weights}
        full |= feasible.project(net.terms, net.levels, full)
        rounded = copied(net.module)
        load_weights(rounded, full)
        self.remeasure(rounded)
        return written.smaller(rounded, net.traced, full, net.may_cut)[0].eval()

    def project(self, net: Net, levels: Mapping[str, Level], weights: Weights, h: feasible.Importance) -> Weights:
        terms, at = feasible.support_only(net.terms, levels)
        companions = net.traced.kept if _has_channels(net.terms) else None
        return feasible.project_live(
            terms, lambda w, i, t: dict(at), weights, h, 1.0, net.traced.effective, companions
        )[1]

    def _cut(self, net: Net) -> Net:
        """Remove dead units physically, where the sets that remain do not mind; training goes on faster after it."""
        if not net.may_cut:
            return net
        small, cut = graph.shrink(net.module, net.traced)
        traced = graph.trace(small, self.example_inputs)
        params = {k: p.detach() for k, p in small.named_parameters()}
        terms, levels = _terms_after_cut(net, traced, params, cut)
        return Net(small, traced, terms, levels, [*net.surgery, cut], net.asked)

    def _held(self, name: str, net: Net, epochs: float) -> None:
        self._use(net.module)
        terms, levels = feasible.support_only(net.terms, net.levels)
        phase = Held(terms, levels, self.setting.params, self.steps(epochs))
        outcome = self._train(Stage(name, phase, self.recipe.training_of("polish"), self._polish_objectives()))
        self._log(name, outcome, epochs)

    def _snap(self, name: str, net: Net, epochs: float) -> None:
        self._use(net.module)
        self.pulse(f"{name}.values", last=True)
        with torch.no_grad():
            phase = Snap(net.terms, net.levels, self.setting.params, self.steps(epochs))
        outcome = self._train(Stage(name, phase, self.recipe.training_of("snap"), self._polish_objectives()))
        self._log(name, outcome, epochs)

    def _finish(self, name: str, net: Net, purse: Spending, epochs: float) -> tuple[Net, Written]:
        """Write the net; while the file is too big, tighten a little and retrain briefly."""
        limit, over = purse.limit("nbytes"), 0.0
        for trim in range(_TRIMS + 1):
            outside = feasible.contains(net.terms, net.levels, net.weights)
            assert not outside, f"not members after {name}: {outside}"
            self.pulse(f"{name}.write", last=True)
            files = written.write(
                net.module, net.traced, self.example_inputs, None, net.surgery, net.may_cut, net.terms
            )
            outside = self.outside(net, files)
            if outside and trim < _TRIMS:  # a constant that was folded into a bias moved it off its values
                net = self._cut(net)
                self._snap(f"{name}.settle{trim}", net, _TRIM_SHARE * epochs)
                continue
            if outside:
                raise CheckError(
                    f"the written weights are not in the sets that were asked for: {'; '.join(outside[:4])}; "
                    "please report this model"
                )
            if limit is None or len(files.sct) <= limit:
                purse.check(sizes(files.module, net.traced, len(files.sct)))
                return net, files
            over = len(files.sct) - limit
            tighter = Spending(net.terms, (Limit("nbytes", limit),))
            beyond = len(files.sct) - tighter.expected_nbytes(net.levels, net.weights)
            tighter.fixed["nbytes"] = beyond + 0.2 * over + 8
            self._fit(f"{name}.trim{trim}", net, tighter)
            net = self._cut(net)
            share = _TRIM_SHARE * epochs
            if feasible.has_values(net.terms):
                self._snap(f"{name}.trim{trim}.snap", net, share)
            else:
                self._held(f"{name}.trim{trim}.polish", net, share)
        raise BudgetError(
            f"budget: nbytes <= {limit:g} was missed by {over:g} bytes after {_TRIMS} trims; "
            "raise the budget or constrain more layers",
            len(files.sct),
        )

    def outside(self, net: Net, files: Written) -> list[str]:
        """Sites that the written file does not hold in the sets the user named, at the levels given or chosen."""
        named = Asked(tuple(t for t in self.start.terms if t.given), {}, 0)
        asked = [named] if net.asked is None else [named, net.asked]
        return [line for a in asked for line in membership.outside(a, files.onnx, files.surgery, files.arrays)]

    # ---- shared ------------------------------------------------------------------------------------------------
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

    def purse(self, net: Net, limits: Sequence[Limit], name: str = "prices") -> Spending:
        """The budget's prices on `net`; `name` is what their progress is called."""
        limits = spending.metered(limits)
        asks_bytes = any(x.kind == "nbytes" for x in limits)

        def costs_of(near: Weights) -> spending.Costs:
            self._check()
            self.pulse(name)
            small = written.smaller(net.module, net.traced, near, net.may_cut)[0]
            return sizes(small, net.traced, self.template.nbytes(small, net.terms) if asks_bytes else 0)

        note = left_out_note(left_out(net.traced)) or ""
        held = {m.param for t in net.terms for m in t.site.members}
        free = {n: math.prod(s) for n, s in net.traced.program.shapes.items() if len(s) > 1 and n not in held}
        return Spending(net.terms, limits, costs_of, net.traced.effective, left_out=note, untouched=free)

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

    def _use(self, module: nn.Module) -> None:
        if self._channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.setting.model = module

    def _train(self, stage: Stage) -> Outcome:
        self._check()
        return train(self.setting, stage)

    def _check(self) -> None:
        if self.setting.interrupted():
            raise InterruptedRun(f"interrupted between two stages; {self.setting.ledger.going_on}")

    def _remember(self, name: str, make: Callable[[], Any]) -> Any:
        return self.setting.ledger.fact(name, make)

    def _polish_objectives(self) -> list[Any]:
        return self.recipe.build_objectives(polish=True)

    @property
    def _batch_size(self) -> int:
        return self.recipe.training.batch_size

    def _log(self, name: str, outcome: Outcome, epochs: float) -> None:
        facts = {k: v for k, v in outcome.facts.items() if k != "memory"}
        self.stages.append(
            {
                "name": name,
                "seconds": outcome.seconds,
                "epochs": epochs,
                "metric": outcome.metric,
                "curve": outcome.curve,
                **facts,
            }
        )

    def importance(self, net: Net, key: str) -> dict[str, Tensor | None]:
        """Importance outside training: statistics measured on the weights as they are."""
        stats = optimizers.Statistics(dict(net.module.named_parameters()), *self._calibrate(net, key))
        g = seeds.generator(self.setting.seed, key, "saliency")
        return importance_of(net.terms, net.weights, self.recipe.build_saliency(), stats, g)

    def _calibrate(self, net: Net, key: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean squared and mean gradients over some batches, when the saliency wants them; weights do not move."""
        if not self.recipe.build_saliency().needs & {"second_moment", "gradient"}:
            return {}, {}
        self._use(net.module)
        params = self.setting.params
        batches = self.setting.batches.epoch(self.setting.seed, "calibrate", 0)

        def backward() -> bool:
            pair = next(batches, None)
            if pair is None:
                return False
            loss = combined_loss(self.setting, self.recipe.build_objectives(polish=True), 0.0, *pair)
            loss.backward()  # type: ignore[no-untyped-call]
            return True

        modes = {m: m.training for m in net.module.modules()}
        net.module.eval()  # batch-norm statistics and dropout must not move
        try:
            return optimizers.gradient_moments(params, backward, _CALIBRATION_BATCHES)
        finally:
            for module, mode in modes.items():
                module.training = mode


@dataclass(frozen=True)
class _Plan:
    approach: float
    polish: float
    snap: float


def plan_phases(recipe: Recipe, solver: Solver, terms: Sequence[Term]) -> _Plan:
    """Shares of the epochs. Without value constraints there is no snap, without supports no polish."""
    values, supports = feasible.has_values(terms), bool(support_terms(terms))
    if not supports:
        snap = recipe.snap if solver.moves_values else 1.0
        return _Plan(1.0 - snap, 0.0, snap)
    snap = recipe.snap if values else 0.0
    polish = 1.0 - snap if solver.instant else recipe.polish
    return _Plan(max(round(1.0 - polish - snap, 9), 0.0), polish, snap)


def support_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms' support parts, before any level is known."""
    return feasible.support_only(terms, {t.site.name: None for t in terms})[0]


def _has_channels(terms: Sequence[Term]) -> bool:
    return any(t.site.op == "channels" for t in terms)


def importance_of(
    terms: Sequence[Term],
    weights: Weights,
    saliency: Saliency,
    stats: optimizers.Statistics,
    generator: torch.Generator,
) -> dict[str, Tensor | None]:
    """h per site as the matrix of its term's view; None = all ones (for abs, or while a statistic is unknown)."""
    sources: dict[str, Callable[[str], Any]] = {
        "second_moment": stats.second_moment,
        "gradient": stats.gradient,
        "generator": lambda name: generator,
    }
    out: dict[str, Tensor | None] = {}
    for t in terms:
        parts: dict[str, Tensor] = {}
        for m in t.site.members:
            h = saliency.importance(weights[m.param], {k: sources[k](m.param) for k in saliency.needs})
            if h is not None:
                parts[m.param] = h
        whole = len(parts) == len({m.param for m in t.site.members})
        out[t.site.name] = views.matrix(t.site, t.constraint.view, parts) if whole else None
    return out


def _terms_after_cut(
    net: Net, traced: Traced, params: Mapping[str, Tensor], cut: Mapping[str, Any]
) -> tuple[tuple[Term, ...], dict[str, Level]]:
    """Terms on the smaller net: what is zero stays zero, value constraints go on at their level."""
    topk = catalog.load("constraints", "topk")()
    sites = {s.name: s for s in traced.sites}
    touched: set[str] = set()
    values: dict[str, tuple[Constraint, Level]] = {}
    shared: list[tuple[Site, Constraint, Level]] = []  # value sets over several weights, or parts of one
    for t in net.terms:
        touched |= {m.param for m in t.site.members}
        if t.site.op == "channels":
            touched |= {m.param for m in t.site.removes}
        for part, level in t.constraint.split(net.levels[t.site.name]):
            if part.kind != "values" or level is None:
                continue
            if t.site.op != "channels":
                values[t.site.name] = (part, level)
            elif (mapped := graph.after_cut(t.site, cut)) is not None:
                shared.append((mapped, part, level))
    given = {m.param for t in net.terms if t.given for m in t.site.members}
    terms: list[Term] = []
    levels: dict[str, Level] = {}
    for name, site in sites.items():
        if name not in touched:
            continue
        nnz = int(params[name].count_nonzero())
        support: Level = nnz if nnz < site.n else None
        constraint: Constraint = topk
        if name not in values:
            levels[name] = support
        elif support is None:
            constraint, levels[name] = values[name]
        else:
            constraint = catalog.load("constraints", "both")(parts=(topk, values[name][0]))
            levels[name] = (support, values[name][1])
        terms.append(Term(site, constraint, levels[name] if name in given else None, name in given))
    for site, part, level in shared:  # given from here on: a last trim lowers supports, which are priced one by one
        levels[site.name] = level
        terms.append(Term(site, part, level, True))
    return tuple(terms), levels


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def left_out(traced: Traced) -> list[dict[str, Any]]:
    """Weights that stay as they are whatever the recipe says: name, shape, number, bytes, share of all weights, why."""
    total = sum(math.prod(s) for s in traced.program.shapes.values() if len(s) > 1)
    return [
        {"name": x.name, "shape": list(x.shape), "n": x.n, "nbytes": x.nbytes, "share": x.n / total, "why": x.why}
        for x in traced.left_out
    ]


def left_out_note(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """One sentence that names the weights no constraint can act on, with their share; None when there are none."""
    if not rows:
        return None
    named = ", ".join(f"{r['name']} ({r['nbytes']:,} B, {100 * r['share']:.1f} %, {r['why']})" for r in rows)
    return (
        f"left as they are, no constraint acts on them: {named}; together {sum(r['n'] for r in rows)} weights, "
        f"{sum(r['nbytes'] for r in rows):,} B, {100 * sum(r['share'] for r in rows):.1f} % of all, which every budget "
        "counts"
    )


def _name(constraint: Constraint) -> str:
    return type(constraint).__module__.rpartition(".")[2]


def check_finite(model: nn.Module) -> None:
    """ConstraintError when a parameter or buffer holds NaN or infinity."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            raise ConstraintError(
                f"{name} {list(value.shape)}: {bad} values are NaN or infinite; finite weights are needed; check the "
                "training or the file that they came from"
            )


def first_batch(data: Any, subject: str = "train") -> Any:
    """Inputs of the first batch."""
    for batch in data:
        return pair(batch, subject)[0]
    raise UsageError(f"{subject}: no batches; at least one (inputs, targets) is needed")
