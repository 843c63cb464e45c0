"""Channels that cannot be removed: named with the reason in `sites`, `plan`, the log and the report."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur import graph
from secateur.graph.counts import held, held_note

FAST = {
    "bench": {"seconds": 0.01, "against": []},
    "baselines": [],
    "solver": {"name": "one_shot", "epochs": 1},
    "training": {"threads": 1},
}
WHY = "layer_norm (norm) takes the mean over all of them"


class Normed(nn.Module):
    """The first layer's channels meet in a layer norm, the second's are free."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 6), nn.LayerNorm(6)
        self.second, self.out = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.second(self.norm(self.first(x)))))


def batches() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 8, generator=g), torch.randint(0, 3, (16,), generator=g)) for _ in range(2)]


def test_sites_name_them() -> None:
    found = secateur.sites(Normed(), torch.randn(2, 8))
    assert found["held"] == [{"name": "first.weight", "n": 6, "of": 6, "why": WHY}]
    assert [c["weights"] for c in found["channels"]] == [["second.weight"]]


def test_plan_names_them() -> None:
    recipe = FAST | {"constrain": [{"where": "second", "with": "rows"}], "budget": {"nbytes": "1200B"}}
    notes = secateur.plan(Normed(), batches(), recipe=recipe)["notes"]
    assert f"channels that cannot be removed: first.weight (6 of 6): {WHY}" in notes


def test_log_and_report_name_them_where_channels_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    note = f"channels that cannot be removed: first.weight (6 of 6): {WHY}"
    for set_, named in (("rows", True), ("topk", False)):
        caplog.clear()
        recipe = FAST | {"constrain": [{"where": "second", "with": set_}], "budget": {"nbytes": "1200B"}}
        with caplog.at_level(logging.WARNING, logger="secateur"):
            report = secateur.compress(Normed(), batches(), recipe=recipe, on_progress=False).report
        assert (note in report["notes"]) == named
        assert (note in caplog.messages) == named


def test_a_long_list_is_cut() -> None:
    net = nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(4, 4), nn.LayerNorm(4))), nn.Linear(4, 2))
    traced = graph.trace(net, torch.randn(2, 4))
    assert len(held(traced)) == 6
    note = held_note(traced) or ""
    assert note.count("takes the mean") == 4
    assert note.endswith("; and for 2 more reasons, see `secateur sites`")
    assert held_note(graph.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 4))) is None
