"""Law 7: killed with SIGKILL anywhere and resumed, a run ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from forks import Forks
from secateur.errors import FormatError, UsageError
from secateur.training import checkpoint
from secateur.training.checkpoint import Ledger

MODULE = """
import os, signal, sys
import torch
from torch import nn
from secateur.data.tensors import TensorData

def build():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))

def data():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (384,), generator=g)
    x = torch.randn(384, 8, generator=g) * 0.5
    x[:, :2] += torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])[y]
    return TensorData(x[:256], y[:256], 32), TensorData(x[256:], y[256:], 64)

def main(out, resume, kill_stage, kill_step):
    from secateur import api
    from secateur.recipe import Recipe
    def on_progress(p):
        if p.stage == kill_stage and p.done == kill_step:
            os.kill(os.getpid(), getattr(signal, os.environ.get("SIGNAL", "SIGKILL")))
    api.run(Recipe.from_file("recipe.yaml"), out, resume=resume, on_progress=on_progress)
"""
RECIPE = """
model: toy:build
data: toy:data
budget: {nbytes: 300B}
constrain: [{where: "*", with: [topk, codebook]}]
saliency: {name: abs_v_power}
solver: {name: gradual, epochs: 4, every: 3, stages: 2}
dense: {epochs: 3, lr: 0.02}
training: {lr: 0.01, threads: 1, average: 0.9, checkpoint_seconds: 0, warmup_steps: 2}
baselines: [one_shot_raw]
bench: {seconds: 0.01, against: []}
seed: 4
"""
FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "recipe.yaml")


def timeless(value: Any) -> Any:
    """A report without times, dates and measured costs."""
    if isinstance(value, dict):
        drop = ("seconds", "date", "latency_ms", "bench")
        return {k: timeless(v) for k, v in value.items() if k not in drop}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_killed_at_several_points_and_resumed_ends_in_the_same_bytes(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    whole = forks.run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    for at in (("dense", 5), ("main.approach2", 2), ("main.snap", 3)):
        killed = forks.run(tmp_path, "broken", resume=at[0] != "dense", kill=at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    asked = forks.run(tmp_path, "broken", resume=True, kill=("main.snap", 5), sig="SIGTERM")
    assert "InterruptedRun" in asked.stderr
    ended = forks.run(tmp_path, "broken", resume=True)
    assert ended.returncode == 0, ended.stderr
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    reports = [json.loads((tmp_path / d / "report.json").read_text()) for d in ("whole", "broken")]
    assert timeless(reports[0]) == timeless(reports[1])
    assert not (tmp_path / "broken" / "checkpoint").exists()


INTEGERS = """
model: toy:build
data: toy:data
quantize: {weights: 8, activations: 8, calibration: {batches: 3}}
solver: {name: one_shot, epochs: 2, polish: 0.5, snap: 0.5}
dense: {epochs: 2, lr: 0.02}
training: {lr: 0.01, threads: 1, checkpoint_seconds: 0, warmup_steps: 2}
baselines: []
bench: {seconds: 0.01, against: []}
seed: 4
"""


WRITTEN = """
model: toy:build
data: toy:data
constrain: [{where: "0", with: [topk, codebook], level: {nnz: 40, entries: 4}}]
solver: {name: one_shot, epochs: 2, polish: 0.5, snap: 0.5, equalize: true, bias_correction: true}
dense: {epochs: 2, lr: 0.02}
training: {lr: 0.01, threads: 1, checkpoint_seconds: 0, warmup_steps: 2}
baselines: []
bench: {seconds: 0.01, against: []}
seed: 4
"""


@pytest.mark.parametrize(
    ("recipe", "stages"),
    [
        (INTEGERS, (("main.calibration", 0), ("main.calibration", 2), ("main.snap", 3))),
        (WRITTEN, (("main.snap.values", 1), ("main.snap", 3))),
    ],
    ids=["activations", "equalize and bias_correction"],
)
def test_killed_around_what_leaves_no_record_of_its_own_it_ends_in_the_same_bytes(
    tmp_path: Path, forks: Forks, recipe: str, stages: tuple[tuple[str, int], ...]
) -> None:
    """Calibration, equalisation and bias correction are done again, of the same weights and batches."""
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "recipe.yaml").write_text(recipe)
    whole = forks.run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    for n, at in enumerate(stages):
        killed = forks.run(tmp_path, "broken", resume=n > 0, kill=at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = forks.run(tmp_path, "broken", resume=True)
    assert ended.returncode == 0, ended.stderr
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    reports = [json.loads((tmp_path / d / "report.json").read_text()) for d in ("whole", "broken")]
    assert bool(reports[0]["activations"]) == (recipe == INTEGERS)
    assert any("were equalised" in n for n in reports[0]["notes"]) == (recipe == WRITTEN)
    assert timeless(reports[0]) == timeless(reports[1])


NESTED = """
model: toy:build
data: toy:data
budget: {nnz: 60}
constrain: [{where: "*", with: {name: nested, of: topk, shares: [0.5, 0.3]}}]
solver: {name: gradual, epochs: 3, every: 3, stages: 2}
dense: {epochs: 2, lr: 0.02}
training: {lr: 0.01, threads: 1, average: 0.9, checkpoint_seconds: 0, warmup_steps: 2}
baselines: []
bench: {seconds: 0.01, against: []}
seed: 4
"""


def test_killed_while_the_levels_are_trained_it_ends_in_the_same_bytes(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "recipe.yaml").write_text(NESTED)
    whole = forks.run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    for i, at in enumerate((("main.tighter0.levels", 3), ("main.tighter1.levels", 2))):
        killed = forks.run(tmp_path, "broken", resume=i > 0, kill=at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = forks.run(tmp_path, "broken", resume=True)
    assert ended.returncode == 0, ended.stderr
    for name in (*FILES, "model.level1.onnx", "model.level2.onnx"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name


def test_another_recipe_may_not_take_up_a_checkpoint(tmp_path: Path) -> None:
    first = Ledger(tmp_path, "epochs: 4")
    first.fact("threads", lambda: 2)
    assert Ledger(tmp_path, "epochs: 4", resume=True).fact("threads", lambda: 1) == 2
    with pytest.raises(UsageError, match="the checkpoint belongs to another recipe"):
        Ledger(tmp_path, "epochs: 5", resume=True)


def test_work_is_never_thrown_away_unasked(tmp_path: Path) -> None:
    Ledger(tmp_path, "epochs: 4").fact("threads", lambda: 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=rf"{tmp_path}: holds the checkpoint of an earlier run; --resume goes on"):
        Ledger(tmp_path, "epochs: 5")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def small_ledger(folder: Path) -> Path:
    """A folder with one record of two tensors and some facts; its path."""
    tensors = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.ones(2, dtype=torch.float64)}
    Ledger(folder).finish("dense", tensors, {"metric": 0.5, "curve": [{"step": 3}]})
    return next(folder.glob("*.safetensors"))


def test_every_flipped_bit_of_a_checkpoint_is_one_clear_sentence(tmp_path: Path) -> None:
    path = small_ledger(tmp_path)
    whole = path.read_bytes()
    ledger = Ledger(tmp_path, resume=True).done("dense")
    assert ledger is not None
    assert torch.equal(ledger[0]["fc.weight"], torch.arange(6.0).view(2, 3))
    for at in range(len(whole)):
        for bit in (at % 8, (at + 3) % 8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(FormatError, match=r"0000\.safetensors: damaged checkpoint .*; delete .* to start anew"):
                Ledger(tmp_path, resume=True)


def test_every_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = small_ledger(tmp_path)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(FormatError, match="damaged checkpoint"):
            Ledger(tmp_path, resume=True)


@pytest.mark.parametrize(
    "facts",
    [
        [],
        {"version": 1, "key": "k", "stage": "dense", "facts": {}},
        {"key": "k", "stage": "dense", "facts": {}},
        {"version": 2, "stage": "dense", "facts": {}},
        {"version": 2, "key": "k", "facts": {}},
        {"version": 2, "key": "k", "stage": "dense"},
        {"version": 2, "key": "k", "stage": 3, "facts": {}},
    ],
)
def test_a_checkpoint_of_another_version_or_kind_is_named(facts: Any, tmp_path: Path) -> None:
    (tmp_path / "0000.safetensors").write_bytes(checkpoint.encode({}, facts))
    with pytest.raises(FormatError, match="not a checkpoint that this version reads; delete"):
        Ledger(tmp_path, resume=True)


def test_a_checkpoint_nested_too_deep_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.json, "dumps", lambda value: "[" * 200_000)
    raw = checkpoint.encode({}, {})
    monkeypatch.undo()
    (tmp_path / "0000.safetensors").write_bytes(raw)
    with pytest.raises(FormatError, match="damaged checkpoint"):
        Ledger(tmp_path, resume=True)


def test_killed_in_training_and_in_the_final_writing(tmp_path: Path) -> None:
    """Two moments of `tests/kills.py`, which can be run longer by hand."""
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), "--only", "admm", "--moments", "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
