"""`Compressor`: the same phases inside the user's own training loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur import graph
from secateur.api import own_data
from secateur.api.own_forward import OwnForward
from secateur.api.result import Result
from secateur.budget import kinds, refusal
from secateur.budget.purse import Purse
from secateur.errors import BudgetError, CheckError, UsageError
from secateur.export.written import Written
from secateur.graph.unwrapping import plain, reparametrized, unwrapped
from secateur.proof import record
from secateur.proof.judge import Judge
from secateur.recipe import Recipe
from secateur.run import activations, equalize, permute, prices, problem, search
from secateur.run.job import Job
from secateur.run.net import Candidate, Net
from secateur.terms import feasible
from secateur.training import metrics, ranks
from secateur.training.calibration import Statistics
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Setting, load_weights, weights_of
from secateur.training.phases import Approach, Held, Phase, Snap

_JUDGED = 20  # evaluations in the feasible phases
_RANGES = ("quantize.activations needs ranges, which are",)
State = dict[str, Any]


class Compressor:
    """Constraints for a loop that stays the user's.

    >>> # for inputs, targets in batches:
    >>> #     loss = task(model(inputs), targets) + compressor.penalty()
    >>> #     optimizer.zero_grad(); loss.backward(); optimizer.step(); compressor.step()
    >>> #     if compressor.round_changed: restart the learning-rate schedule
    >>> # result = compressor.finalize()

    The approach takes the first 1 - polish - snap of `total_steps`, then the support is fixed and retrained, then
    (when values are constrained) snapped. At a change of phase the optimizer's state is emptied, because stale
    moments would move weights for a loss that is no longer there. Gradients are projected by a hook in front of
    `optimizer.step`. Where the recipe asks for 8-bit activations, their ranges are calibrated when the values are
    snapped, batch norms are folded into the layers before them, and from there on `model(inputs)` rounds to grids whose
    scales `optimizer` trains with the weights, as in `compress`; `finalize` gives the model its own forward pass back.

    Under `torchrun` every rank makes its own from the same recipe, around a model in DistributedDataParallel: masks and
    answers are bit-equal on all ranks, metrics are rank 0's, inputs are measured over the batches of all.

    Args:
        model: the live model that the user trains; `finalize` leaves it as trained and returns a new one.
        recipe: a Recipe, a mapping or a path; its training keys, `dense` and `baselines` are the user's business here.
        example_inputs: what the network is traced and written on: a tensor, a tuple (positions) or a dict (keywords).
        optimizer: the user's optimizer over the model's parameters.
        total_steps: optimizer steps that the loop will make.
        evaluate: `model -> metric` (higher is better), asked some twenty times in the feasible phases; the best point
            is kept. Without it the last point is the answer.
        dynamic_batch: as of `compress`.
        calibration: re-iterable of some batches of inputs, for solvers and saliencies that measure what comes into a
            layer (`obs`, `wanda`), and for `quantize.activations`; each a tensor, a tuple or a dict, as
            `example_inputs`; with `loss` pairs `(inputs, targets)`.
        loss: `(outputs, targets) -> scalar`, as of `compress`, for saliencies that measure the loss before the first
            step (`hessian`, `fisher`, `snip`) and solvers that try other weights (`random_search`, `evolution`).
        budget: overrides the recipe's budget; `accuracy_drop` cannot be steered from here and is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe | Mapping[str, Any] | str | Path,
        example_inputs: Any,
        *,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        evaluate: Callable[[nn.Module], float] | None = None,
        budget: Mapping[str, Any] | None = None,
        dynamic_batch: bool | None = None,
        calibration: Iterable[Any] | None = None,
        loss: Callable[[Any, Any], Tensor] | None = None,
    ) -> None:
        self._recipe = Recipe.of(recipe, budget)
        ranks.check_whole(model, "Compressor")
        model = unwrapped(model)[0]
        if computed := reparametrized(model):
            raise UsageError(
                f"Compressor: {computed[0]} is computed from other parameters (a mask or a parametrization); make it "
                "plain first: torch.nn.utils.prune.remove, parametrize.remove_parametrizations"
            )
        _refuse(self._recipe)
        if total_steps < 1:
            raise UsageError(f"Compressor: total_steps is {total_steps}; at least 1 is needed")
        self._model, self._optimizer, self._evaluate, self._total = model, optimizer, evaluate, total_steps
        self._params = {k: p for k, p in model.named_parameters() if p.is_floating_point()}
        _check_held(model, optimizer, self._params)
        dense, judge = plain(model)[0].eval(), evaluate or (lambda m: 0.0)
        free = self._recipe.dynamic_batch if dynamic_batch is None else dynamic_batch
        self._example = graph.settle(dense, example_inputs, free)
        self._trial = own_data.trial(model, self._recipe, calibration, loss)
        inputs = own_data.First(calibration) if loss and calibration is not None else calibration
        setting = Setting(dense, own_data.Given(inputs or ()), lambda o, t: o, judge, True, self._recipe.seed, Ledger())
        self._job = Job(self._recipe, setting, dense, self._example, tuple(self._recipe.limits()))
        self._told: list[str] = []  # for the report
        if permute.wanted(self._job.start):  # the same network in another order of channels, in the user's own module
            start, stage = permute.permuted(self._job, {})
            model.load_state_dict(start.module.state_dict())
            self._told.append(permute.note(stage))
        traced, terms = self._job.start.traced, self._job.start.terms
        if self._job.chain is not None:
            raise UsageError("Compressor: nested trains its levels by turns in a loop of its own; use compress()")
        self._forward = self._on_grids()
        self._recipe, self._chosen = self._recipe.resolved(*traced.free)
        self._net = Net(model, traced, terms, short=self._job.start.short, machine=self._job.start.machine)
        self._stats = Statistics(
            self._params,
            inputs=own_data.inputs(model, self._recipe, inputs, _RANGES if self._forward is not None else ()),
            found=own_data.of_loss(model, self._recipe, calibration, loss),
            moving="movement" in self._recipe.needs,
        )
        self._stats.optimizer = optimizer
        self._solver = self._recipe.build_solver()
        self._saliency = self._recipe.build_saliency()
        self._purse = self._job.purse(self._job.start, self._recipe.limits())
        plan = problem.phases(self._recipe, self._solver, terms)
        self._ends = [round(total_steps * plan.approach), round(total_steps * (plan.approach + plan.polish))]
        self._set_out()
        optimizer.register_step_pre_hook(self._before_step)

    def _set_out(self) -> None:
        """Nothing stepped and nothing kept yet: the first phase, its limits read from the weights as they stand."""
        self._n, self._at, self._entered = 0, -1, 0
        self.round_changed = False
        self._best: dict[str, Tensor] = {}
        self._metric: float | None = None
        self._phase: Phase
        with torch.no_grad():
            self._purse.set_out(self._net.weights)
            self._purse.probe(self._net.weights, self._importance())
            self._enter(0)

    def _on_grids(self) -> OwnForward | None:
        """What will put the model's activations on grids; None where the recipe asks for none."""
        start = self._job.start
        if not activations.planned(self._job, start):
            return None
        asked = self._job.recipe.build_activations(start.traced.sites)
        return OwnForward(self._model, *activations.places(start.module, self._job, asked), self._optimizer)

    # ---- the loop's calls --------------------------------------------------------------------------------------
    def penalty(self) -> Tensor | float:
        """Added to the loss; 0 where the solver takes an exact proximal step inside `step`."""
        return self._phase.penalty()

    @torch.no_grad()
    def step(self) -> None:
        """After `optimizer.step()`. `round_changed` then says whether the learning rate should restart."""
        if self._n >= self._total:
            raise UsageError(f"Compressor: step {self._n + 1} of total_steps={self._total}; call finalize() now")
        if self._at == 0:
            self._stats.observe()
        self._phase.after_step()
        self._n += 1
        self.round_changed = self._phase.round_changed
        self._judge()
        if self._at < 2 and self._n >= self._ends[self._at] and self._n < self._total:
            self._enter(self._at + 1)
            self._judge()  # the point as projected is an answer too
            self.round_changed = True

    def finalize(self) -> Result:
        """The compressed network: cut, exported, packed; the budget is checked on the bytes.

        Raises:
            BudgetError: the file is larger than allowed; `smallest` is a size that a second run should reach.
        """
        live = weights_of(self._model)
        try:
            with torch.no_grad():
                for phase in range(self._at + 1, 3):  # a loop that stopped early: the rest happens at once
                    self._enter(phase)
                load_weights(self._net.module, self._best or self._point())
                if self._forward is not None:
                    self._forward.end()
                best, job = self._written()
        finally:
            load_weights(self._model, live)
        judge = Judge("metric", self._measured, "validation", None, True)
        facts = {
            "model": type(self._model).__name__,
            "data": "the user's own loop",
            "seed": self._recipe.seed,
            "date": None,
            "recipe": self._recipe.to_yaml(),
            "threads": torch.get_num_threads(),
            "notes": [
                *filter(None, [self._example.note]),
                *([] if self._evaluate else ["no evaluate was given: metrics are not measured"]),
                *filter(None, [self._chosen, *self._told]),
            ],
        }
        report = record.build(job, search.Answer(best, None), judge, self._example.inputs, facts)
        facts = json.loads(json.dumps(report))
        return Result(best.files.module, facts, best.files, self._recipe.to_yaml(), self._example.inputs, self._example)

    # ---- exact resume ------------------------------------------------------------------------------------------
    def state_dict(self) -> State:
        """Everything but the model's and the optimizer's own states, which the user saves beside it."""
        tensors, facts = self._phase.state_dict()
        stats, counts = self._stats.state_dict()
        return {
            "n": self._n,
            "at": self._at,
            "entered": self._entered,
            "levels": dict(self._net.levels),
            "purse": self._purse.state(),
            "told": list(self._told),
            "phase": {k: v.clone() for k, v in tensors.items()},
            "facts": facts,
            "statistics": stats,
            "counts": counts,
            "best": self._best,
            "metric": self._metric,
            "scales": self._forward.state() if self._forward is not None else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Exactly as saved; load the model's and the optimizer's states first, after this object was made as before:
        where `permute` reorders channels, making it changes the model's values.
        """
        self._n, self._metric, self._entered = int(state["n"]), state["metric"], int(state["entered"])
        self._best = {k: v.clone() for k, v in state["best"].items()}
        self._net.levels = {k: feasible.as_level(v) for k, v in state["levels"].items()}
        self._told = list(state["told"])
        live = weights_of(self._model)
        with torch.no_grad():
            self._make(int(state["at"]))
            load_weights(self._model, live)
            self._purse.load(state["purse"])
            if self._forward is not None:
                self._forward.load(state["scales"])
            self._phase.load_state_dict({k: v.clone() for k, v in state["phase"].items()}, state["facts"])
        self._stats.load_state_dict(state["statistics"], state["counts"])

    # ---- inside ------------------------------------------------------------------------------------------------
    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            self._phase.before_step()
            if self._at == 0:
                self._stats.before_step()

    def _enter(self, at: int) -> None:
        """Leave the present phase and begin phase 0 (approach), 1 (polish) or 2 (snap)."""
        ranks.check_same(self._params, "Compressor")
        if at > 0 and self._at == 0:
            self._phase.close()
            prices.fit(self._net, self._purse, self._importance(), self._job.template)
        if at == 2 and not feasible.has_values(self._net.terms):
            self._at = 2  # nothing to snap: the polish goes on to the end
            return
        if at == 2 and (stage := equalize.equalize(self._recipe, self._net)):
            self._told.append(equalize.note(stage))
        self._entered = self._n
        self._make(at)
        if at > 0:
            for p in self._params.values():
                self._optimizer.state.pop(p, None)
            self._best, self._metric = {}, None  # points of the phase before are not members of this one's sets
        if at == 0 and self._ends[0] == 0:
            self._enter(1)
        elif at == 1 and self._ends[1] == self._ends[0]:
            self._enter(2)

    def _make(self, at: int) -> None:
        self._at = at
        net, left = self._net, max(self._total - self._entered, 1)
        if at == 0:
            asked = problem.build(
                net,
                self._solver,
                self._purse,
                self._params,
                self._stats,
                importance=self._importance,
                recipe=self._recipe,
                total_steps=self._ends[0],
                adaptive="betas" in self._optimizer.defaults,
                trial=self._trial,
            )
            self._phase = Approach(self._solver, asked, self._purse, self._recipe.keep_zeros)
        elif at == 1:
            kept, levels = feasible.support_only(net.terms, net.levels)
            self._phase = Held(kept, levels, self._params, left, net.companions, self._recipe.keep_zeros)
        else:
            scales: tuple[str, ...] = ()
            if self._forward is not None:
                net = self._net = activations.quantized(self._job, "compressor", net)
                scales = self._forward.begin(net)
            params = {k: p for k, p in net.module.named_parameters() if p.is_floating_point()}
            keep = self._recipe.keep_zeros
            self._phase = Snap(net.terms, net.levels, params, left, net.companions, scales=scales, keep_zeros=keep)

    def _measured(self, model: nn.Module) -> float:
        """The user's metric; of several processes rank 0's, or each would keep another point."""
        if self._evaluate is None:
            return 0.0
        return ranks.agreed(float(self._evaluate(model)), next(iter(self._params.values())))

    def _point(self) -> dict[str, Tensor]:
        tracked = {k: v.clone() for k, v in self._phase.tracked().items()}
        return {**weights_of(self._net.module), **self._phase.candidate(tracked)}

    def _judge(self) -> None:
        """In the last phase: evaluate now and then, keep the best feasible point."""
        last = self._at == 2 or (self._at == 1 and not feasible.has_values(self._net.terms))
        if self._evaluate is None or not last:
            return
        every = max((self._total - self._ends[1 if self._at == 2 else 0]) // _JUDGED, 1)
        if self._n % every and self._n != self._total and self._best:
            return
        module = self._net.module  # the model, or what it runs
        live, point = weights_of(module), self._point()
        load_weights(module, point)
        with metrics.evaluating(self._model):
            metric = self._measured(self._model)
        load_weights(module, live)
        if self._metric is None or metric > self._metric:
            self._metric, self._best = metric, point

    def _written(self) -> tuple[Candidate, Job]:
        net, files, readings = self._fitted()
        metric = self._measured(files.module)
        job = self._job
        job.dense_metric = self._measured(job.dense)
        if outside := job.outside(net, files):
            raise CheckError(f"Compressor.finalize: not in the sets that were asked for: {'; '.join(outside[:4])}")
        self._purse.check({**net.costs(files), **{kind: r["value"] for kind, r in readings.items()}})
        return Candidate("compressor", net, files, metric, {}, [], readings=readings), job

    def _fitted(self) -> tuple[Net, Written, prices.Readings]:
        """The written files; while they are too big, the levels are tightened a little.

        Retraining changed the values since the levels were set, and with them what their coding costs, by a percent
        or so. The loop is over, so that nothing is retrained after this.

        Raises:
            BudgetError: with a size that another training should reach (`prices.reachable`).
        """

        def write(net: Net, trim: int) -> tuple[Net, Written]:
            return net, net.write(self._example)

        def repair(net: Net, purse: Purse, trim: int) -> Net:
            prices.fit(net, purse, self._importance(), self._job.template)
            load_weights(net.module, net.member(net.levels, net.weights))
            return net

        try:
            return prices.trimmed(self._net, self._purse.limits, write, repair)
        except BudgetError as e:
            limit = self._purse.limit(e.kind or "")
            if e.kind is None or e.smallest is None or limit is None:
                raise
            hint = refusal.biases_too(e.kind)
            reached = prices.reachable(self._net, e.kind, self._importance(), self._job.template)
            reached = max(reached, kinds.up(e.kind, e.smallest))
            raise BudgetError(
                f"Compressor.finalize: {e.kind} <= {limit:g} was missed: the smallest "
                f"{refusal.subject(e.kind)} after this training is {e.smallest:g} {kinds.meter(e.kind).unit}"
                f"{'' if e.site is None else f', and {e.site} holds the largest part'}; in your loop, raise the budget "
                f"to {reached}, which another training should reach whatever values it gives to what no set holds, or "
                f"constrain more layers {f'({hint}) ' if hint else ''}and train on with more total_steps "
                "and a longer solver.polish, which repairs what the tighter levels break",
                reached,
                e.site,
                e.kind,
            ) from None

    def _importance(self) -> dict[str, Tensor | None]:
        return problem.importance_now(self._net, self._recipe, self._stats, self._recipe.seed, "compressor", self._n)


def _refuse(recipe: Recipe) -> None:
    """What cannot be done from a loop that is not ours."""
    timed = kinds.on_machine(recipe.limits())
    if timed and ranks.several() and recipe.latency.table is None:
        raise UsageError(
            f"Compressor: {timed[0]} is measured, by each of {ranks.count()} processes for itself; give latency: "
            "{table: FILE} (secateur latency writes one), so that all plan by the same figures"
        )
    if any(x.kind == kinds.DROP for x in recipe.limits()):
        raise UsageError(f"Compressor: {kinds.DROP} needs several trainings; use compress(), or give a size")
    if recipe.from_scratch:
        raise UsageError(
            "Compressor: solver.from_scratch: your loop begins with the model's weights as they are; give it an "
            "untrained model, and leave the switch out"
        )
    if recipe.bias_correction:
        raise UsageError("Compressor: solver.bias_correction measures outputs on training data; use compress()")


def _check_held(model: nn.Module, optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor]) -> None:
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    strangers = [k for k, p in params.items() if id(p) not in held and p.requires_grad]
    if strangers:
        raise UsageError(
            f"Compressor: the optimizer does not hold {strangers[0]} and {len(strangers) - 1} others of the model; "
            "give it model.parameters() of this very model"
        )
