"""`solver.from_scratch`: the approach begins with the weights that the model came with, and the report says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.errors import UsageError
from secateur.report import verdict
from secateur.testing import nets

FAST: dict[str, Any] = {
    "bench": {"seconds": 0.01, "against": []},
    "baselines": [],
    "constrain": [{"where": "*", "with": "topk", "level": {"sparsity": 0.5}}],
    "training": {"threads": 1},
    "saliency": "abs",
}
SAID = "from scratch: the run and its one-shot baseline began with the weights that the model came with"


def batches() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 8, generator=g), torch.randint(0, 3, (16,), generator=g)) for _ in range(4)]


def compressed(**solver: Any) -> secateur.Result:
    recipe = FAST | {k: solver.pop(k) for k in ("dense", "objective", "budget") if k in solver}
    return secateur.compress(nets.mlp(), batches(), recipe=recipe | {"solver": solver}, on_progress=False)


def test_a_trained_net_is_the_yardstick_and_untrained_weights_are_the_start() -> None:
    start = torch.cat([m.weight.flatten() for m in nets.mlp() if isinstance(m, nn.Linear)])
    dense = {"epochs": 3, "lr": 0.05}
    for scratch in (True, False):
        found = compressed(name="one_shot", epochs=0, dense=dense, from_scratch=scratch)
        weights = torch.cat([m.weight.flatten() for m in found.model.modules() if isinstance(m, nn.Linear)])
        assert bool(torch.isin(weights[weights != 0], start).all()) == scratch
        assert "trained" not in found.report["dense"]
        assert [n for n in found.report["notes"] if n.startswith("from scratch")] == [SAID] * scratch


@pytest.mark.parametrize("name", ["rigl", "lottery"])
def test_without_a_dense_training_there_is_none(name: str) -> None:
    report = compressed(name=name, epochs=3, from_scratch=True).report
    assert [s["name"] for s in report["stages"]] == ["main.approach", "main.polish"]
    assert report["dense"]["trained"] is False
    (note,) = [n for n in report["notes"] if n.startswith("from scratch")]
    assert "no dense net was trained" in note
    assert "no dense net was trained" in " ".join(f.text for f in verdict.findings(report))
    assert "→" not in verdict.headline(report)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": {"accuracy_drop": "1pt"}}, "budget.accuracy_drop: solver.from_scratch without"),
        ({"objective": [{"name": "task"}, {"name": "distillation"}]}, "listens to the dense net"),
    ],
)
def test_what_needs_a_trained_dense_net_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compressed(name="one_shot", epochs=1, from_scratch=True, **more)


def test_an_order_by_trained_weights_is_refused() -> None:
    blocks = {"constrain": [{"where": "0", "with": {"name": "blocks", "permute": True}, "level": {"sparsity": 0.5}}]}
    recipe = FAST | blocks | {"solver": {"name": "one_shot", "epochs": 1, "from_scratch": True}}
    with pytest.raises(UsageError, match="permute orders channels by trained weights"):
        secateur.compress(nets.mlp(), batches(), recipe=recipe, on_progress=False)


def test_a_loop_of_ones_own_begins_where_its_model_is() -> None:
    model = nets.mlp()
    recipe = FAST | {"solver": {"name": "one_shot", "from_scratch": True}}
    with pytest.raises(UsageError, match="give it an untrained model"):
        secateur.Compressor(
            model,
            recipe,
            torch.randn(2, 8),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            total_steps=4,
        )
