"""`bench DIR`: every runtime on a run's own test inputs, torch too; what cannot be had is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur import api, zoo
from secateur.errors import UsageError
from secateur.export import written
from secateur.proof import timing, verify
from secateur.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; the dense net is `dense.safetensors` beside it."""
    tmp_path = tmp_path_factory.mktemp("timing")
    torch.manual_seed(0)
    save_file(zoo.digits_cnn().state_dict(), tmp_path / "dense.safetensors")
    recipe = Recipe.from_dict(
        {
            "model": "secateur.zoo:digits_cnn",
            "weights": str(tmp_path / "dense.safetensors"),
            "data": "digits",
            "constrain": [{"with": "topk", "level": {"sparsity": 0.95}}],
            "solver": {"name": "one_shot", "epochs": 0},
            "training": {"threads": 1},
            "bench": {"against": [], "seconds": 0.01},
        }
    )
    folder = tmp_path / "run"
    api.run(recipe, folder)
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_run_is_timed_with_torch_and_the_dense_net_it_started_from(folder: Path) -> None:
    found = timing.bench_run(folder, ("torch",), seconds=0.02)
    assert {(r["runtime"], r["model"]) for r in found["runs"]} == {
        (runtime, model) for runtime in ("engine", "torch") for model in ("model", "dense")
    }
    assert all(c["agree"] for c in found["checks"])
    assert found["inputs"] == "given"
    assert found["n_inputs"] == 64
    assert found["notes"] == []

    kept = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(kept.replace("dense.safetensors", "gone.safetensors"))
    found = timing.bench_run(folder, ("torch",), seconds=0.02)
    assert "gone.safetensors: cannot be read" in found["notes"][0]
    (folder / "recipe.yaml").write_text(re.sub("(?m)^weights: .*$", "weights: null", kept))
    found = timing.bench_run(folder, (), seconds=0.02, int8=True)
    assert {r["model"] for r in found["runs"]} == {"model", "dense", "dense_int8"}
    assert found["calibration"] == "minimum and maximum over 16 given inputs"
    assert "fresh weights" in found["notes"][0]
    (folder / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match=r"recipe\.yaml is missing; give the folder of a finished run"):
        timing.bench_run(folder, ("torch",))


def test_the_dense_net_that_a_run_trained_is_timed(folder: Path) -> None:
    kept = re.sub("(?m)^weights: .*$", "weights: null", (folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(kept.replace("dense: null", "dense: {epochs: 1}"))
    assert "fresh weights" in timing.bench_run(folder, (), seconds=0.02)["notes"][0]
    (folder / written.DENSE).write_bytes(written.tensors_of(zoo.digits_cnn()))
    assert timing.bench_run(folder, (), seconds=0.02)["notes"] == []


NODES = """
import torch
from torch import nn
from secateur.zoo.ordinary import GCN
def net():
    torch.manual_seed(0)
    return GCN(6, 8, 3)
def data():
    torch.manual_seed(1)
    batch = ((torch.randn(100, 6), torch.eye(100)), torch.randint(0, 3, (100,)))
    return [batch], [batch]
"""


def test_a_run_on_a_whole_graph_is_timed_on_that_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graph_run.py").write_text(NODES)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {
        "model": "graph_run:net",
        "data": "graph_run:data",
        "constrain": [{"with": "topk", "level": {"sparsity": 0.5}}],
        "solver": {"name": "one_shot", "epochs": 0},
        "bench": {"against": [], "seconds": 0.01},
    }
    api.run(Recipe.from_dict(recipe), tmp_path / "run")
    found = timing.bench_run(tmp_path / "run", ("torch",), seconds=0.02, trust=True)
    assert all(c["agree"] for c in found["checks"])
    assert found["inputs"] == "given"
    assert found["n_inputs"] == 1
    assert verify.verify(tmp_path / "run", trust=True)["passed"]


def test_a_run_is_verified_and_timed_without_the_code_that_its_folder_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    ran = tmp_path / "ran"
    assert verify.verify(folder)["passed"]
    kept, surgery = (folder / "recipe.yaml").read_text(), (folder / "surgery.json").read_text()
    for key, own in (("model", "secateur.zoo:digits_cnn"), ("data", "digits")):
        evil = f"evil_{key}:run"
        (tmp_path / f"evil_{key}.py").write_text(f"open({str(ran)!r}, 'w').close()\nrun = None\n")
        (folder / "recipe.yaml").write_text(kept.replace(f"{key}: {own}", f"{key}: {evil}"))
        with pytest.raises(UsageError, match=f"the {key} of this run, '{evil}', is code outside secateur"):
            verify.verify(folder)
        notes = timing.bench_run(folder, ("torch",), seconds=0.02)["notes"]
        assert any(f"the {key} of this run, '{evil}', is code outside secateur" in note for note in notes), notes
        assert not ran.exists()
    with pytest.raises(UsageError, match=r"evil_data:run: returned None"):
        verify.verify(folder, trust=True)
    assert ran.exists()
    ran.unlink()
    (folder / "recipe.yaml").write_text(kept)
    (folder / "surgery.json").write_text(surgery.replace("secateur.zoo:digits_cnn", "evil_model:run"))
    with pytest.raises(UsageError, match="the model of this run, 'evil_model:run', is code outside secateur"):
        verify.verify(folder)
    assert not ran.exists()
