"""Weights on which no constraint can act: named with their share in plan, log and report, and counted by the budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur import graph
from secateur.api.asked import Asked, make_job
from secateur.errors import BudgetError, UsageError
from secateur.graph.counts import left_out, left_out_note
from secateur.proof.judge import Judge
from secateur.recipe import Recipe
from secateur.run.net import sizes
from secateur.training.checkpoint import Ledger

FAST = {"bench": {"seconds": 0.01, "against": []}, "baselines": [], "solver": {"name": "one_shot", "epochs": 1}}
FAST |= {"training": {"threads": 1}}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.fc = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.r(x)[0][:, -1])


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.spare = nn.Linear(8, 3), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


def frozen_first() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    net[0].requires_grad_(False)
    return net


def data(*shape: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(8, *shape, generator=g), torch.randint(0, 3, (8,), generator=g)) for _ in range(2)]


def frozen_gru() -> nn.Module:
    net = Recurrent()
    net.r.requires_grad_(False)
    return net


CASES = [
    (frozen_gru, (5, 8), ["r.weight_ih_l0", "r.weight_hh_l0"], "frozen", 12 * 8 + 12 * 4),
    (Spare, (8,), ["spare.weight"], "not used by forward", 25),
    (frozen_first, (8,), ["0.weight"], "frozen", 48),
]


@pytest.mark.parametrize(("make", "shape", "names", "why", "n"), CASES)
def test_every_matrix_is_a_site_or_named_with_its_share_and_counted(
    make: Any, shape: tuple[int, ...], names: list[str], why: str, n: int
) -> None:
    net = make()
    traced = graph.trace(net, torch.randn(2, *shape))
    rows = left_out(traced)
    assert [r["name"] for r in rows] == names
    assert all(why in r["why"] for r in rows)
    matrices = [p for p in net.parameters() if p.dim() > 1]
    assert sum(r["n"] for r in rows) == n
    assert sum(r["share"] for r in rows) == pytest.approx(n / sum(p.numel() for p in matrices))
    assert sizes(net, traced, lambda: 0)["nnz"] == sum(int(p.count_nonzero()) for p in matrices)
    assert f"{names[0]} ({rows[0]['nbytes']:,} B, " in (left_out_note(rows) or "")
    assert sum(r["nbytes"] for r in rows) == 4 * n


def test_steps_of_recurrent_cells_and_positions_of_transposed_convolutions_are_multiply_adds() -> None:
    net = Recurrent()
    assert sizes(net, graph.trace(net, torch.randn(2, 5, 8)), lambda: 0)["macs"] == 5 * (12 * 8 + 12 * 4) + 12
    up = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 3))
    assert sizes(up, graph.trace(up, torch.randn(2, 2, 2, 2)), lambda: 0)["macs"] == 4 * 24 + 81


@pytest.mark.parametrize(("make", "shape", "names", "why", "n"), [c for c in CASES if c[0] is Spare])
def test_a_budget_that_such_weights_alone_exceed_is_refused_and_its_value_is_reachable(
    make: Any, shape: tuple[int, ...], names: list[str], why: str, n: int, caplog: pytest.LogCaptureFixture
) -> None:
    net, batches = make(), data(*shape)

    def probe(limit: float) -> None:
        recipe = Recipe.of(FAST, {"nnz": limit}, 0)
        judge = Judge("metric", lambda m: 0.0, "validation", None, True)
        asked = Asked(
            net, batches, nn.functional.cross_entropy, lambda m: 0.0, True, None, judge, batches[0][0], "n", "d", []
        )
        job = make_job(asked, recipe, Ledger(), None)
        purse = job.purse(job.start, job.limits)
        purse.probe(job.start.weights, {})

    with pytest.raises(BudgetError, match=rf"nnz <= 10 cannot be met.*left as they are.*{names[0]}.*{why}") as caught:
        probe(10)
    assert caught.value.smallest is not None
    assert n < caught.value.smallest <= n + 10
    probe(caught.value.smallest)


@pytest.mark.parametrize(("budget", "held"), [({"nbytes": 600}, "1,280 bytes"), ({"nnz": 300}, "320 nonzeros")])
def test_a_refusal_blames_the_weights_that_no_set_acts_on(budget: dict[str, int], held: str) -> None:
    net = nn.Sequential(nn.Embedding(40, 8), nn.Softmax(-1), nn.Flatten(), nn.Linear(16, 3))  # no column may go
    net[0].requires_grad_(False)
    batches = [(torch.randint(0, 40, (8, 2)), torch.randint(0, 3, (8,)))]
    with pytest.raises(BudgetError, match=rf"{held} of it in weights that no set acts on \(0\.weight\)"):
        secateur.compress(net, batches, valid=batches, budget=budget, recipe=FAST, on_progress=False)


def test_a_refusal_does_not_blame_weights_that_lose_channels() -> None:
    """The second layer is in no set, but its columns go with the channels of the first."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 300))
    batches = [(torch.randn(8, 4), torch.randint(0, 300, (8,)))]
    with pytest.raises(BudgetError, match=r"multiply-adds, and 0\.weight\.channels holds the largest part"):
        secateur.compress(net, batches, valid=batches, budget={"macs": 2}, recipe=FAST, on_progress=False)


def test_plan_log_and_report_name_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = data(8)
    with caplog.at_level(logging.WARNING, logger="secateur"):
        result = secateur.compress(Spare(), batches, valid=batches, budget={"nnz": 35}, recipe=FAST)
    said = [r.getMessage() for r in caplog.records if "spare.weight" in r.getMessage()]
    assert said == [n for n in result.report["notes"] if "spare.weight" in n]
    assert [r["name"] for r in result.report["left_out"]] == ["spare.weight"]
    assert result.report["compressed"]["nnz"] == sum(
        int((p != 0).sum()) for p in result.model.parameters() if p.ndim > 1
    )
    assert 25 < result.report["compressed"]["nnz"] <= 35


def test_a_net_that_is_frozen_whole_is_refused_at_once() -> None:
    net = frozen_first().requires_grad_(False)
    with pytest.raises(UsageError, match=r"all weights are frozen \(0\.weight, 2\.weight\).*requires_grad_\(True\)"):
        secateur.compress(net, data(8), valid=data(8), budget={"nnz": 20}, recipe=FAST)


def test_a_frozen_layer_that_the_recipe_names_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'0' matches no layer.*frozen layers are left as they are: 0\.weight"):
        secateur.compress(
            frozen_first(),
            data(8),
            valid=data(8),
            budget={"nnz": 60},
            recipe={**FAST, "constrain": [{"where": "0", "with": "topk"}]},
        )
