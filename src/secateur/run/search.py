"""Which budget to run: one attempt under given limits, or a bisection when the accuracy drop is the limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from secateur import catalog, graph
from secateur.budget import kinds
from secateur.contracts import Solver, Term
from secateur.errors import BudgetError
from secateur.graph.copying import copied
from secateur.report.advice import too_few
from secateur.run import chain, equalize, permute
from secateur.run.attempt import attempt
from secateur.run.job import Job, Warm
from secateur.run.net import Candidate, Net
from secateur.training.loop import load_weights
from secateur.types import Limit, Stage

_BEGIN = 8  # the first size tried is this part of the dense one
_ATTEMPTS = 8  # trainings that a bisection may spend
_CLOSE = 1.1  # bisection ends when the smallest size that works and the largest that fails are this close
_FRONTIER = 2  # looser attempts, to show what is reachable, when size and accuracy cannot be met together
_SLACK = 1e-12


@dataclass
class Answer:
    """The chosen candidate, the one-shot baseline where it was run, and what was seen on the way."""

    best: Candidate
    one_shot: Candidate | None
    frontier: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def solve(job: Job) -> Answer:
    """Run what the recipe asks for.

    Raises:
        BudgetError: with the frontier that was seen.
    """
    dense, solver = _start(job), job.recipe.build_solver()
    start = dense if job.warm is None else from_finished(job, job.warm)
    metered = kinds.metered(job.limits)
    frontier: list[dict[str, float]] = []
    free = any(not t.given for t in start.terms)
    if few := _few_steps(job, metered):
        logging.getLogger("secateur").warning(few)
    if job.drop_limit is not None and not metered and free:
        best, limits = _bisect(job, solver, start, frontier)
    else:
        best, limits = attempt(job, "main", solver, start, metered, job.recipe.epochs), metered
        _note(job, best, frontier)
        if not _accurate(job, best):
            _refuse(job, solver, start, metered, best, frontier)
    told = [module.note(s) for module in (permute, equalize) for s in job.stages if s["name"] == module.STAGE]
    answer = Answer(best, None, frontier, [*([few] if few else []), *_rate(job, metered), *dict.fromkeys(told)])
    if {"one_shot", "one_shot_raw"} & set(job.recipe.baselines) and not solver.instant:
        _baseline(job, dense, limits, answer)
    answer.best = chain.chained(job, answer.best)
    return answer


def _start(job: Job) -> Net:
    """The dense net, with its channels in the order that block sets ask for; from scratch its untrained weights."""
    if job.untrained is not None:
        module = copied(job.start.module)
        load_weights(module, job.untrained)
        return replace(job.start, module=module)
    if not permute.wanted(job.start):
        return job.start
    net, stage = permute.permuted(job, job.importance(job.start, permute.STAGE))
    job.stages.append(stage)
    return net


def _few_steps(job: Job, metered: tuple[Limit, ...]) -> str | None:
    """Said before the training, while it can still be changed."""
    return too_few(job.steps(job.recipe.epochs), job.reduction(metered), job.recipe.epochs)


def _rate(job: Job, metered: tuple[Limit, ...]) -> list[str]:
    """Said where the steps raised the learning rate."""
    chosen = job.learning_rate(metered, job.recipe.epochs)
    if chosen == job.recipe.training.learning_rate:
        return []
    return [f"no training.lr was given: {chosen:.2g}, for {job.steps(job.recipe.epochs)} optimizer steps are few"]


def _baseline(job: Job, start: Net, limits: tuple[Limit, ...], answer: Answer) -> None:
    """One-shot under the same limits for as many epochs; it is the answer when it is better on validation."""
    solver = catalog.load("solvers", "one_shot")()
    epochs = job.recipe.epochs if "one_shot" in job.recipe.baselines else 0.0
    try:
        answer.one_shot = attempt(job, "one_shot", solver, start, limits, epochs)
    except BudgetError as e:
        answer.notes.append(f"one-shot projection could not meet the budget at all: {e}")
        return
    if epochs and job.setting.better(answer.one_shot.metric, answer.best.metric):
        answer.notes.append(
            f"one-shot with equal retraining was better on validation ({answer.one_shot.metric:.4f} against "
            f"{answer.best.metric:.4f}) and is the answer; try more epochs or another solver setting"
        )
        answer.best = replace(answer.one_shot, outcome="one_shot_better")


def _accurate(job: Job, candidate: Candidate) -> bool:
    return job.drop_limit is None or job.drop(candidate.metric) <= job.drop_limit + _SLACK


def _note(job: Job, candidate: Candidate, frontier: list[dict[str, float]]) -> None:
    frontier.append({"nbytes": candidate.nbytes, kinds.DROP: job.drop(candidate.metric)})


def _refuse(
    job: Job, solver: Solver, start: Net, limits: tuple[Limit, ...], best: Candidate, frontier: list[dict[str, float]]
) -> None:
    """The size fits and the accuracy does not: see what looser sizes give, then say so."""
    scale = 1.0
    for i in range(_FRONTIER if limits else 0):
        scale *= 1.5
        looser = tuple(Limit(x.kind, x.value * scale) for x in limits)
        candidate = attempt(job, f"looser{i}", solver, start, looser, job.recipe.epochs)
        _note(job, candidate, frontier)
        if _accurate(job, candidate):
            break
    seen = "; ".join(f"{p['nbytes']:.0f} bytes: drop {100 * p[kinds.DROP]:.2f} pt" for p in frontier)
    raise BudgetError(
        f"budget: {kinds.DROP} <= {100 * (job.drop_limit or 0):g} pt was missed with "
        f"{100 * job.drop(best.metric):.2f} pt on validation; reached: {seen}; allow a larger drop or size, train "
        "longer (solver.epochs) or constrain less",
        job.drop(best.metric),
    )


def first_try(job: Job) -> Limit:
    """Where the search begins when only the accuracy drop is limited: at an eighth of what the dense net costs."""
    kind = job.recipe.sought
    return Limit(kind, job.dense_cost(kind) / _BEGIN)


def _bisect(
    job: Job, solver: Solver, start: Net, frontier: list[dict[str, float]]
) -> tuple[Candidate, tuple[Limit, ...]]:
    """Smallest size whose drop is allowed: halve while it works, then bisect between success and failure.

    Warm: each attempt starts from the last success, which is smaller and closer than the dense net. Terms with given
    levels start from the dense net each time, because their levels refer to its shapes; so do nets whose activations
    are quantized in the end.
    """
    kind = first_try(job).kind
    goes_on = can_go_on(start.terms) and job.untrained is None
    best: Candidate | None = None
    limits: tuple[Limit, ...] = ()
    works, fails = job.dense_cost(kind), 0.0
    target, step, largest = first_try(job).value, 2.0, works
    for i in range(_ATTEMPTS):
        begin = start
        if best is not None and goes_on and not best.net.activations:
            begin = from_finished(job, Warm(best.files.module, tuple(best.files.surgery)))
        now = (Limit(kind, max(target, kinds.meter(kind).step)),)
        try:
            candidate = attempt(job, f"search{i}", solver, begin, now, job.recipe.epochs)
        except BudgetError:
            fails = max(fails, target)
        else:
            _note(job, candidate, frontier)
            if _accurate(job, candidate):
                best, limits, works = candidate, now, min(target, candidate.cost(kind))
                step = step * 1.2 if not fails else step
            else:
                fails = max(fails, target)
        if fails and works / fails <= _CLOSE:
            break
        target = math.sqrt(works * fails) if fails else works / step
        if best is None and fails:
            target = math.sqrt(largest * fails)
    if best is None:
        seen = "; ".join(f"{p['nbytes']:.0f} bytes: drop {100 * p[kinds.DROP]:.2f} pt" for p in frontier)
        raise BudgetError(
            f"budget: no size was found with {kinds.DROP} <= {100 * (job.drop_limit or 0):g} pt; reached: "
            f"{seen or 'nothing'}; allow a larger drop or train longer (solver.epochs)",
            min((p[kinds.DROP] for p in frontier), default=None),
        )
    return best, limits


def can_go_on(terms: Sequence[Term]) -> bool:
    """May a run start from the answer of another? Given levels mean the dense net; layers in two have other names."""
    return not any(t.given or t.constraint.stage == Stage.FORM for t in terms)


def from_finished(job: Job, last: Warm) -> Net:
    """The net of a finished answer as a start: smaller and closer to the sets than the dense one."""
    traced = graph.trace(last.module, job.example_inputs)
    surgery, here = list(last.surgery), job.start.machine
    return Net(last.module, traced, job.terms_of(traced), surgery=surgery, short=job.counts_bytes, machine=here)
