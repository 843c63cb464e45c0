"""A small study of every kind of task, from its file to the verdict, on data at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.reproduce import small
from tests.reproduce.small import HERE, TASKS

from secateur import graph, reproduce
from secateur.errors import UsageError
from secateur.export import written
from secateur.reproduce import judging
from secateur.reproduce.kinds import KINDS

TRAINING = {"batch_size": 32, "threads": 1, "warmup_steps": 0}


def levels(kind: str) -> list[float]:
    """Shares of zeros: a grid of two for one kind, for a grid does not know the kind of its task."""
    return [0.3, 0.6] if kind == "classification" else [0.6]


def plan(kind: str) -> dict[str, Any]:
    """A dense net and its levels of zeros."""
    data, model, epochs, lr, _ = TASKS[kind]
    training = TRAINING | {"lr": lr}
    return {
        "about": f"{kind}, briefly",
        "task": kind,
        "data": f"{HERE}:{data}",
        "seeds": [0],
        "n_weights": 1000,
        "grid": {"sparsity": levels(kind)},
        "claims": [
            {
                "says": "pruning costs nothing",
                **{"part": "cut", "against": "dense", "claimed": 0, "margin": 0.5},
                "expect": {"low": -0.2, "high": 0.1},
            }
        ],
        "parts": {
            "dense": {"title": "dense", "model": f"{HERE}:{model}", "epochs": epochs, "training": training},
            "cut": {
                "title": "$sparsity zeros",
                "from": "dense",
                "recipe": {
                    "constrain": [{"where": "*", "with": "topk", "level": {"sparsity": "$sparsity"}}],
                    "solver": {"name": "one_shot", "epochs": 1},
                    "training": training,
                },
            },
        },
    }


@pytest.mark.filterwarnings("ignore::secateur.errors.HandedOverWarning")  # recurrent nets: ONNX Runtime's
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_runs_to_its_verdict(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(plan(kind), sort_keys=False))
    record = reproduce.run(str(path), out=tmp_path / "out")
    assert list(record["cells"]) == ["dense", *(f"cut,sparsity={share}" for share in levels(kind))]
    better = 1 if KINDS[kind].higher_is_better else -1
    for cell in record["cells"].values():
        assert better * cell["test"]["mean"] > better * TASKS[kind][-1], cell
        assert cell["same_as_onnxruntime"] in (None, cell["n_test"])
        assert cell["n_test"] > 0
    nnz = [c["nnz"]["mean"] for c in record["cells"].values()]
    assert nnz == sorted(set(nnz), reverse=True)
    text = reproduce.table(record)
    assert "open: pruning costs nothing" in text
    assert "1 of at least 3 seeds" in text
    (claim,) = record["claims"]
    sides = [record["cells"][c]["test"]["mean"] for c in claim["cells"]]
    assert claim["gain"]["mean"] == pytest.approx(better * (sides[0] - sides[1]))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("classification", "diabetes"),
        ("regression", "pictures"),
        ("language", "rows"),
        ("detection", "pictures"),
        ("nodes", "pictures"),
        ("sequences", "diabetes"),
        ("spiking", "letters"),
    ],
)
def test_data_of_another_kind_is_refused_before_any_training(kind: str, data: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(plan(kind) | {"data": f"{HERE}:{data}"}, sort_keys=False))
    seen: list[Any] = []
    with pytest.raises(UsageError, match=f"study wrong: data .*: task {kind} needs"):
        reproduce.run(str(path), out=tmp_path / "out", on_progress=seen.append)
    assert not seen


def test_bits_per_character_are_those_of_a_coin(tmp_path: Path) -> None:
    class Even(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 8, x.shape[1])

    batch = (torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long))
    assert KINDS["language"].judge([batch])(Even()) == pytest.approx(3.0)


def test_a_graph_is_timed_as_a_whole(tmp_path: Path) -> None:
    part = small.graph().test
    (inputs, classes), *_ = part
    net = small.gcn().eval()
    example = graph.settle(net, inputs, cut=2)
    (tmp_path / "model.onnx").write_bytes(written.write(net, graph.trace(net, example), example).onnx)
    found = judging.latency({"gcn": tmp_path}, ["onnxruntime"], 0.01, part)
    assert (found["batch"], found["n_inputs"]) == (len(classes), 1)
    assert [c["agree"] for c in found["checks"]] == [True]
