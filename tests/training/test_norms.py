"""Batch-norm statistics belong to the weights that are judged, written and cut."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.training.nets import batches
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import catalog
from secateur.contracts import Term
from secateur.errors import InterruptedRun
from secateur.recipe import Training
from secateur.training import metrics, norms
from secateur.training.batches import source
from secateur.training.checkpoint import Ledger
from secateur.training.loop import Outcome, Setting, Stage, train
from secateur.training.phases import Held, Phase
from secateur.training.seeds import isolated
from secateur.types import Member, Site

TASK = catalog.load("objectives", "task")()
TOPK = catalog.load("constraints", "topk")()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn, self.fc2 = nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)
        self.drop, self.spare = nn.Dropout(0.5), nn.BatchNorm1d(12)  # forward does not reach the spare one

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.drop(torch.relu(self.bn(self.fc1(x)))))
        return out


def normed() -> Normed:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Normed()


def test_the_statistics_are_those_of_the_data_and_nothing_else_moves() -> None:
    net, data = normed().train(), batches()
    with torch.no_grad():
        net.spare.running_mean.fill_(7.0)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = norms.remeasure(net, data)
    with torch.no_grad():
        means = torch.stack([net.fc1(x).mean(0) for x, _ in data])
        variances = torch.stack([net.fc1(x).var(0) for x, _ in data])
    torch.testing.assert_close(net.bn.running_mean, means.mean(0))
    torch.testing.assert_close(net.bn.running_var, variances.mean(0))
    assert torch.equal(found["bn.running_mean"], net.bn.running_mean)
    assert all(m.training for m in net.modules())
    assert net.bn.momentum == 0.1
    assert torch.equal(torch.get_rng_state(), state)
    after = net.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if k not in ("bn.running_mean", "bn.running_var"))


def test_a_net_without_batch_norm_is_not_run() -> None:
    assert norms.remeasure(nn.Linear(3, 2), [(None, None)]) == {}


def pruned(ledger: Ledger, stop_at: int = -1, steps: int = 8) -> tuple[Setting, Outcome]:
    """Trained, then cut to a few weights by a projection, then a few steps of masked retraining."""
    seen = [0]

    def interrupted() -> bool:
        seen[0] += 1
        return seen[0] == stop_at

    with isolated(1):
        net = normed()
        evaluate = metrics.accuracy(batches(seed=1))
        s = Setting(net, source(batches()), cross_entropy, evaluate, True, 3, Ledger())
        train(s, Stage("dense", Phase(s.params, 60), Training(lr=2e-2, warmup_steps=2), [TASK]))
        s.ledger, s.interrupted = ledger, interrupted
        term = Term(Site("fc1.weight", "linear", (12, 8), (Member("fc1.weight"),)), TOPK)
        with torch.no_grad():
            net.fc1.weight.copy_(TOPK.project(net.fc1.weight, 8))
        phase = Held((term,), {"fc1.weight": 8}, s.params, steps)
        return s, train(s, Stage("held", phase, Training(lr=1e-5), [TASK]))


def dense_statistics() -> dict[str, Tensor]:
    """What a projection leaves: the statistics of the weights before it."""
    with isolated(1):
        s = Setting(normed(), source(batches()), cross_entropy, metrics.accuracy(batches()), True, 3, Ledger())
        train(s, Stage("dense", Phase(s.params, 60), Training(lr=2e-2, warmup_steps=2), [TASK]))
    return dict(s.model.named_buffers())


def test_a_kept_point_has_the_statistics_of_its_own_weights() -> None:
    s, outcome = pruned(Ledger())
    kept = {k: v.clone() for k, v in s.model.state_dict().items()}
    norms.remeasure(s.model, s.norm_batches)
    assert all(torch.equal(v, kept[k]) for k, v in s.model.state_dict().items())
    assert outcome.metric is not None


def test_stale_statistics_would_have_cost_loss() -> None:
    s, _ = pruned(Ledger(), steps=0)
    held_out = metrics.accuracy(batches(seed=1))
    fresh = held_out.scores(s.model)["loss"]
    s.model.load_state_dict({**s.model.state_dict(), **dense_statistics()})
    assert held_out.scores(s.model)["loss"] > fresh


def test_resumed_with_batch_norm_equals_undisturbed(tmp_path: Path) -> None:
    _, whole = pruned(Ledger())
    folder = tmp_path
    with pytest.raises(InterruptedRun):
        pruned(Ledger(folder), stop_at=5)
    _, resumed = pruned(Ledger(folder, resume=True))
    assert resumed.curve == whole.curve
    assert all(torch.equal(resumed.weights[k], v) for k, v in whole.weights.items())
