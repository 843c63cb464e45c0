"""The stage loop: exact resume at any step, best point kept, EMA inside the piece, clear failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.nets import batches, mlp, weight_sites
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import catalog
from secateur.contracts import Problem, Term
from secateur.errors import DivergedError, InterruptedRun
from secateur.recipe import Training
from secateur.solvers.gradual import Gradual
from secateur.solvers.sr_ste import SrSte
from secateur.training import metrics
from secateur.training.batches import source
from secateur.training.calibration import Statistics
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Outcome, Setting, Stage, train
from secateur.training.phases import Approach, Held, Phase, Snap
from secateur.training.seeds import isolated

TASK = catalog.load("objectives", "task")()
TOPK = catalog.load("constraints", "topk")()
CODEBOOK = catalog.load("constraints", "codebook")()


def setting(ledger: Ledger | None = None, stop_at: int = -1, **changes: Any) -> Setting:
    data, seen = batches(), [0]

    def interrupted() -> bool:
        seen[0] += 1
        return seen[0] == stop_at

    return Setting(
        model=changes.pop("model", mlp()),
        batches=source(data),
        loss=cross_entropy,
        evaluate=metrics.accuracy(batches(seed=1)),
        higher_is_better=True,
        seed=3,
        ledger=ledger or Ledger(),
        interrupted=interrupted,
        **changes,
    )


def terms_of(model: nn.Module, constraint: Any) -> tuple[Term, ...]:
    return tuple(Term(s, constraint) for s in weight_sites(model))


def make_phase(kind: str, s: Setting, stats: Statistics) -> Phase:
    params = s.params
    if kind == "free":
        return Phase(params, 20)
    if kind in ("gradual", "sr_ste"):
        terms = terms_of(s.model, TOPK)
        problem = Problem(
            params=params,
            terms=terms,
            allocate=lambda w, h, t: {x.site.name: round(x.site.n * (0.2**t)) for x in terms},
            total_steps=20,
            statistics=stats,
        )
        solver = Gradual(every=3, stages=2) if kind == "gradual" else SrSte(decay=0.1, every=3)
        with torch.no_grad():
            return Approach(solver, problem)
    if kind == "held":
        terms = terms_of(s.model, TOPK)
        levels = {t.site.name: 10 for t in terms}
        with torch.no_grad():
            for t in terms:
                params[t.site.name].copy_(TOPK.project(params[t.site.name], 10))
        return Held(terms, levels, params, 20)
    terms = terms_of(s.model, CODEBOOK)
    with torch.no_grad():
        return Snap(terms, {t.site.name: CODEBOOK.parse_level({"entries": 4}, t.site.shape) for t in terms}, params, 20)


def run(kind: str, ledger: Ledger | None = None, stop_at: int = -1, optimizer: str = "adam") -> Outcome:
    with isolated(1):
        s = setting(ledger, stop_at)
        stats = Statistics(s.params)
        training = Training(lr=2e-2, average=0.9, warmup_steps=2, optimizer=optimizer)
        return train(s, Stage("stage", make_phase(kind, s, stats), training, [TASK], statistics=stats))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("kind", ["free", "gradual", "sr_ste", "held", "snap"])
def test_resumed_at_any_step_equals_undisturbed(kind: str, optimizer: str, tmp_path: Path) -> None:
    whole = run(kind, optimizer=optimizer)
    for stop_at in (1, 7, 8, 13, 19):
        folder = tmp_path / f"{stop_at}"
        with pytest.raises(InterruptedRun):
            run(kind, Ledger(folder), stop_at, optimizer)
        resumed = run(kind, Ledger(folder, resume=True), optimizer=optimizer)
        assert resumed.curve == whole.curve
        assert resumed.metric == whole.metric
        assert all(torch.equal(resumed.weights[k], whole.weights[k]) for k in whole.weights)


def test_training_learns_and_keeps_the_best_point() -> None:
    outcome = run("free")
    assert outcome.metric == max(point["metric"] for point in outcome.curve)
    assert outcome.metric > 0.8


@pytest.mark.parametrize(("unmoved", "kept"), [(0.0, "last"), (None, "best")])
def test_of_equally_good_epochs_the_later_one_is_kept_where_no_loss_is_told(unmoved: float | None, kept: str) -> None:
    judge, seen = metrics.accuracy(batches(seed=1)), []

    def evaluate(model: nn.Module) -> float:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return judge(model) if unmoved is None else unmoved

    s = setting()
    s.evaluate = evaluate
    with isolated(1):
        outcome = train(s, Stage("stage", Phase(s.params, 20), Training(lr=2e-2), [TASK]))
    found = [row["metric"] for row in outcome.curve]
    at = len(found) - 1 if kept == "last" else max(i for i, m in enumerate(found) if m == max(found))
    assert all(torch.equal(outcome.weights[k], seen[at][k]) for k in outcome.weights)


def test_held_keeps_the_support_of_the_averaged_weights() -> None:
    outcome = run("held")
    assert all(int(outcome.weights[k].count_nonzero()) == 10 for k in ("fc1.weight", "fc2.weight"))
    assert outcome.curve[-1]["loss"] < outcome.curve[0]["loss"]


def test_snap_ends_on_the_codebook() -> None:
    outcome = run("snap")
    assert all(len(outcome.weights[k].unique()) <= 4 for k in ("fc1.weight", "fc2.weight"))
    assert outcome.metric == max(point["metric"] for point in outcome.curve)
    assert outcome.curve[-1]["loss"] < outcome.curve[0]["loss"]


def test_held_ties_clusters_exactly_like_a_shared_parameter() -> None:
    """One gradient step on tied weights moves each cluster by the mean gradient of its members."""
    s = setting()
    name = "fc1.weight"
    term = next(t for t in terms_of(s.model, CODEBOOK) if t.site.name == name)
    level = CODEBOOK.parse_level({"entries": 2}, term.site.shape)
    p = s.params[name]
    with torch.no_grad():
        p.copy_(CODEBOOK.project(p, level))
    before = p.detach().clone()
    phase = Held((term,), {name: level}, s.params, 1)
    p.grad = torch.arange(p.numel(), dtype=p.dtype).view_as(p)
    gradient = p.grad.clone()
    with torch.no_grad():
        phase.before_step()
        p -= 0.1 * p.grad
        phase.after_step()
    for value in before.unique():
        members = before == value
        expected = value - 0.1 * gradient[members].double().mean()
        torch.testing.assert_close(p.detach()[members].double(), expected.double().expand(int(members.sum())))


def test_divergence_names_the_step() -> None:
    s = setting(model=mlp())
    with torch.no_grad():
        s.params["fc1.weight"].fill_(float("inf"))
    with pytest.raises(DivergedError, match=r"step 0; try a lower training\.lr"):
        train(s, Stage("dense", Phase(s.params, 4), Training(), [TASK]))


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first = run("free", Ledger(tmp_path))
    again = run("free", Ledger(tmp_path, resume=True), stop_at=1)
    assert again.metric == first.metric
    assert all(torch.equal(again.weights[k], first.weights[k]) for k in first.weights)


def test_the_callers_generators_and_flags_come_back() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run("free")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_distillation_is_zero_at_the_teacher_and_scales_with_temperature() -> None:
    d = catalog.load("objectives", "distillation")(temperature=2.0)
    z: Tensor = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert float(d.loss(z, None, z, None)) == pytest.approx(0.0, abs=1e-6)
    s = z + torch.tensor([0.1, 0.0, 0.0])
    p, q = (z / 2).softmax(-1), (s / 2).softmax(-1)
    by_hand = 4 * (p * (p / q).log()).sum(-1).mean()
    assert float(d.loss(s, None, z, None)) == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("kind", ["held", "snap"])
def test_the_point_as_projected_is_a_candidate(kind: str) -> None:
    s = setting()
    phase = make_phase(kind, s, Statistics(s.params))
    start = phase.candidate({k: v.clone() for k, v in phase.tracked().items()})
    scores = iter([0.9, *[0.1] * 20])  # training makes it worse from the first epoch on
    s.evaluate = lambda model: next(scores)
    outcome = train(s, Stage("after", phase, Training(lr=1e-2), [TASK]))
    assert outcome.metric == 0.9
    assert all(row["metric"] == 0.1 for row in outcome.curve)
    assert all(torch.equal(outcome.weights[k], v) for k, v in start.items())


@pytest.mark.parametrize("lr", [2e-3, 2e-2, 2e-1])
def test_a_snap_repairs_the_rounding_whatever_the_learning_rate(lr: float) -> None:
    """Weights must not wander over the codebook: at a large rate each assignment rounded another net."""
    with isolated(1):
        s = setting()
        train(s, Stage("dense", Phase(s.params, 80), Training(lr=2e-2), [TASK]))
        terms = terms_of(s.model, CODEBOOK)
        with torch.no_grad():
            phase = Snap(terms, {t.site.name: 4 for t in terms}, s.params, 80)
        rounded = metrics.accuracy(batches()).scores(s.model)["loss"]
        train(s, Stage("snap", phase, Training(lr=lr, warmup_steps=5), [TASK], keep_best=False))
    assert metrics.accuracy(batches()).scores(s.model)["loss"] < rounded


def test_a_straight_through_step_moves_values_whole_and_weights_slowly() -> None:
    """By hand: clusters {1, 1}, {3, 3}; the step's mean in each moves its value, the rest is slowed to the drift."""
    member = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    piece = CODEBOOK.freeze(member, 2)
    assert piece.gap == 2.0
    latent = torch.tensor([[0.9, 1.1, 2.5, 3.5]])
    moved = member + torch.tensor([[0.3, 0.1, -0.2, 0.2]])
    after, shown = piece.advance(latent, member, moved, 10)
    torch.testing.assert_close(shown, torch.tensor([[1.2, 1.2, 3.0, 3.0]]))
    own = torch.tensor([[0.1, -0.1, -0.2, 0.2]])
    slow = 0.05 * 2.0 / 10 / 0.15
    torch.testing.assert_close(after, latent + torch.tensor([[0.2, 0.2, 0.0, 0.0]]) + slow * own)
    small = member + 1e-4 * (moved - member)  # a step below the drift is not slowed
    torch.testing.assert_close(piece.advance(latent, member, small, 10)[0], latent + small - member)
