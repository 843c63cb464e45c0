"""The training loop of one stage: deterministic, resumable at any step, keeping the best feasible point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur import schedules
from secateur.contracts import Objective
from secateur.errors import DivergedError, InterruptedRun, UsageError
from secateur.training import augment, calibration, norms, optimizers, seeds
from secateur.training.average import Average
from secateur.training.batches import Batch, Batches, call
from secateur.training.checkpoint import Ledger
from secateur.training.metrics import Evaluate, evaluating, scored
from secateur.training.phases import Phase
from secateur.types import Progress

if TYPE_CHECKING:
    from secateur.recipe import Training

Report = Callable[[Progress], None]


@dataclass
class Setting:
    """What all stages of a run share."""

    model: nn.Module
    batches: Batches
    loss: Callable[[Any, Any], Tensor]
    evaluate: Evaluate
    higher_is_better: bool
    seed: int
    ledger: Ledger
    teacher: nn.Module | None = None
    on_progress: Report | None = None
    interrupted: Callable[[], bool] = lambda: False

    @property
    def params(self) -> dict[str, Tensor]:
        """The model's parameters by name; frozen ones too, which get no gradient and so never move in training."""
        return {k: p for k, p in self.model.named_parameters() if p.is_floating_point()}

    @cached_property
    def norm_batches(self) -> list[Batch]:
        """The batches on which batch-norm statistics are measured anew: the same all the run, read once."""
        return list(islice(self.batches.epoch(self.seed, "norms", 0), norms.BATCHES))

    def better(self, a: float, b: float | None) -> bool:
        """Is metric `a` better than `b`?"""
        if b is None or not math.isfinite(b):
            return math.isfinite(a)
        return a > b if self.higher_is_better else a < b


@dataclass
class Stage:
    """One stage to train: its name in the ledger, its phase, its settings and its length."""

    name: str
    phase: Phase
    training: Training
    objectives: Sequence[Objective]
    keep_best: bool = True  # else the last weights are the answer (the approach, whose way there is not feasible)
    statistics: calibration.Statistics | None = None  # given: fed on the way (where Adam does not keep them itself)


@dataclass
class Outcome:
    """What a stage gave: the weights and buffers kept, their metric on validation, the curve."""

    weights: dict[str, Tensor]
    metric: float | None
    curve: list[dict[str, float]]
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


def train(setting: Setting, stage: Stage) -> Outcome:
    """Train `stage`, or take up where its checkpoint is; the model is left with the weights of the outcome.

    Raises:
        DivergedError: the loss became NaN or infinite.
        InterruptedRun: a stop was asked for; a checkpoint was written first.
    """
    known = setting.ledger.done(stage.name)
    if known is not None:
        tensors, facts = known
        load_weights(setting.model, tensors)
        return Outcome(tensors, facts["metric"], facts["curve"], facts["seconds"], facts["facts"])
    run = _Run(setting, stage)
    outcome = run.go()
    load_weights(setting.model, outcome.weights)
    facts = {
        "metric": outcome.metric,
        "curve": outcome.curve,
        "seconds": outcome.seconds,
        "facts": outcome.facts,
    }
    setting.ledger.finish(stage.name, outcome.weights, facts)
    return outcome


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy parameters and buffers by name, in place; names that are not listed stay."""
    own = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


class _Run:
    """The mutable state of a stage under way."""

    def __init__(self, setting: Setting, stage: Stage) -> None:
        self.s, self.stage, self.phase = setting, stage, stage.phase
        t = stage.training
        self.params = setting.params
        self.optimizer = optimizers.build(t, self.params)
        self.statistics = stage.statistics or calibration.Statistics(self.params)
        self.statistics.optimizer = self.optimizer
        self.schedule = schedules.get(t.schedule)
        self.augment = augment.get(t.augment)
        self.average = Average(t.average) if t.average else None
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.metric: float | None = None
        self.scores: dict[str, float] = {}  # what else is known of the best point: its loss decides between equals
        self.curve: list[dict[str, float]] = []
        self.loss_sum, self.loss_n = 0.0, 0
        self.seconds = 0.0

    def go(self) -> Outcome:
        self._restore()
        began, total, per_epoch = time.monotonic() - self.seconds, self.phase.total_steps, len(self.s.batches)
        if self.step == 0 and self.phase.feasible and self.stage.keep_best:
            self._judge_start()
        self.s.model.train()
        while self.step < total:
            epoch, inside = divmod(self.step, per_epoch)
            for inputs, targets in self.s.batches.epoch(self.s.seed, self.stage.name, epoch, skip=inside):
                self._one(inputs, targets)
                if self.step % per_epoch == 0 or self.step == total:
                    self._judge(self.step / per_epoch)
                self.seconds = time.monotonic() - began
                self._tell(total)
                if self.s.interrupted():
                    self._save()
                    raise InterruptedRun(
                        f"{self.stage.name}: interrupted at step {self.step} of {total}; {self.s.ledger.going_on}"
                    )
                if self.s.ledger.due():
                    self._save()
                if self.step == total:
                    break
        facts = self.phase.close()
        if not self.stage.keep_best or not self.best:
            self.best = self._point()
        return Outcome(self.best, self.metric, self.curve, time.monotonic() - began, facts)

    def _one(self, inputs: Any, targets: Any) -> None:
        s, t = self.s, self.stage.training
        seeds.seed_global(s.seed, self.stage.name, self.step)
        if self.augment is not None:
            if not isinstance(inputs, Tensor) or inputs.dim() != 4:
                raise UsageError(
                    f"training.augment: {t.augment!r} changes images, one tensor [n, c, h, w] as input; got "
                    f"{list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__}; set it to none"
                )
            g = seeds.generator(s.seed, self.stage.name, self.step, "augment")
            inputs = self.augment(inputs, g)
        now = optimizers.rate(self.step, self.phase.span, t.learning_rate, t.warmup_steps, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = now
        loss = self._loss(inputs, targets) + self.phase.penalty()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.stage.name}: the loss is {value} at step {self.step}; try a lower training.lr "
                f"(now {t.learning_rate:g}), more training.warmup_steps, or check the data for NaN"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.phase.before_step()
            self.statistics.before_step()
            self.optimizer.step()
            if self.stage.statistics is not None:
                self.statistics.observe()
            self.phase.after_step()
            if self.average is not None:
                self.average.update({**self.phase.tracked(), **dict(s.model.named_buffers())})
        self.step += 1
        self.loss_sum, self.loss_n = self.loss_sum + value, self.loss_n + 1

    def _loss(self, inputs: Any, targets: Any) -> Tensor:
        return combined_loss(self.s, self.stage.objectives, self.stage.training.label_smoothing, inputs, targets)

    def _point(self) -> dict[str, Tensor]:
        """The feasible weights (averaged when averaging is on) with the buffers that belong to them."""
        if self.average is not None and self.average.values:
            source = dict(self.average.values)
        else:
            source = {**self.phase.tracked(), **dict(self.s.model.named_buffers())}
        with torch.no_grad():
            point = self.phase.candidate({k: v.detach().clone() for k, v in source.items()})
        names = self.s.model.state_dict().keys()
        point = {k: v for k, v in point.items() if k in names}
        return point | self._statistics(point)

    def _statistics(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Batch-norm statistics of a point that a projection made: the running ones are those of other weights."""
        if not (self.phase.projects and norms.has_norms(self.s.model)):
            return {}
        live = weights_of(self.s.model)
        load_weights(self.s.model, point)
        found = norms.remeasure(self.s.model, self.s.norm_batches)
        load_weights(self.s.model, live)
        return found

    def _judge_start(self) -> None:
        """The point as projected is an answer too: training must not end below it."""
        self.best = self._point()
        self.metric, self.scores = self._scored(self.best)

    def _scored(self, point: Mapping[str, Tensor]) -> tuple[float, dict[str, float]]:
        live = weights_of(self.s.model)
        load_weights(self.s.model, point)
        with evaluating(self.s.model):
            found = scored(self.s.evaluate, self.s.model)
        load_weights(self.s.model, live)
        return found

    def _best_so_far(self, metric: float, scores: Mapping[str, float]) -> bool:
        """Better by the metric, or as good with a lower loss: accuracy counts answers, not how sure they are.

        As good where no loss is told: the later one. A metric that has not moved yet (a precision of 0) says nothing,
        and the first epoch's net would be kept of a training that only then begins to work.
        """
        if metric == self.metric:
            known = "loss" in scores and "loss" in self.scores
            return scores["loss"] < self.scores["loss"] if known else True
        return self.s.better(metric, self.metric)

    def _judge(self, epoch: float) -> None:
        point = self._point()
        metric, scores = self._scored(point)
        self.s.model.train()
        loss = self.loss_sum / max(self.loss_n, 1)
        self.loss_sum, self.loss_n = 0.0, 0
        row = {"epoch": epoch, "step": self.step, "loss": loss, "metric": metric}
        row |= {f"valid_{k}": v for k, v in scores.items()} | self.phase.numbers(point)
        self.curve.append({**row, "lr": self.statistics.learning_rate()})
        if not self.stage.keep_best:
            self.metric = metric
        elif self._best_so_far(metric, scores):
            self.metric, self.scores, self.best = metric, scores, point

    def _tell(self, total: int) -> None:
        if self.s.on_progress is None:
            return
        metrics = {"loss": self.loss_sum / self.loss_n} if self.loss_n else {}
        if self.curve:
            metrics["metric"] = self.curve[-1]["metric"]
        self.s.on_progress(Progress(self.stage.name, self.step, total, self.seconds, metrics))

    # ---- checkpoint --------------------------------------------------------------------------------------------
    def _save(self) -> None:
        phase_tensors, phase_facts = self.phase.state_dict()
        stat_tensors, stat_facts = self.statistics.state_dict()
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.s.model.state_dict(),
            "optimizer": optimizers.pack_state(self.optimizer, self.params),
            "phase": phase_tensors,
            "statistics": stat_tensors,
            "average": self.average.values if self.average else {},
            "best": self.best,
        }
        facts = {
            "step": self.step,
            "phase": phase_facts,
            "statistics": stat_facts,
            "average": self.average.n if self.average else 0,
            "metric": self.metric,
            "scores": self.scores,
            "curve": self.curve,
            "loss": [self.loss_sum, self.loss_n],
            "seconds": self.seconds,
        }
        flat = {f"{part}:{k}": v for part, tensors in parts.items() for k, v in tensors.items()}
        self.s.ledger.save(self.stage.name, flat, facts)

    def _restore(self) -> None:
        known = self.s.ledger.current(self.stage.name)
        if known is None:
            return
        flat, facts = known
        parts: dict[str, dict[str, Tensor]] = {}
        for full, value in flat.items():
            part, _, name = full.partition(":")
            parts.setdefault(part, {})[name] = value
        load_weights(self.s.model, parts["model"])
        optimizers.unpack_state(self.optimizer, self.params, parts.get("optimizer", {}))
        self.phase.load_state_dict(parts.get("phase", {}), facts["phase"])
        self.statistics.load_state_dict(parts.get("statistics", {}), facts["statistics"])
        if self.average is not None and "average" in parts:
            own = self.s.model.state_dict()
            self.average.values = {k: torch.empty_like(own[k]).copy_(v) for k, v in parts["average"].items()}
            self.average.n = int(facts["average"])
        self.best, self.step = parts.get("best", {}), int(facts["step"])
        self.metric, self.scores, self.curve = facts["metric"], facts["scores"], facts["curve"]
        self.loss_sum, self.loss_n = facts["loss"]
        self.seconds = float(facts["seconds"])


def combined_loss(
    setting: Setting, objectives: Sequence[Objective], smoothing: float, inputs: Any, targets: Any
) -> Tensor:
    """Weighted sum of the objectives on one batch."""
    outputs = call(setting.model, inputs)
    teacher_outputs = None
    if any(o.needs_teacher for o in objectives):
        assert setting.teacher is not None, "an objective needs a teacher; the caller provides the dense net"
        with torch.no_grad():
            teacher_outputs = call(setting.teacher, inputs)
    loss = setting.loss
    if smoothing:
        loss = smoothed(loss, smoothing)
    total: Tensor | None = None
    for o in objectives:
        part = o.weight * o.loss(outputs, targets, teacher_outputs, loss)
        total = part if total is None else total + part
    assert total is not None
    return total


def smoothed(loss: Callable[[Any, Any], Tensor], amount: float) -> Callable[[Any, Any], Tensor]:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, arXiv:1512.00567, sec. 7); other losses as they are."""
    if loss is not torch.nn.functional.cross_entropy:
        return loss
    return lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=amount)
