"""`bench DIR`: every runtime on a run's own test inputs, torch too; what cannot be had is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur import api, timing, zoo
from secateur.errors import UsageError
from secateur.recipe import Recipe


def test_a_run_is_timed_with_torch_and_the_dense_net_it_started_from(tmp_path: Path) -> None:
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
    found = timing.bench_run(folder, ("torch",), seconds=0.02)
    assert {(r["runtime"], r["model"]) for r in found["runs"]} == {
        (runtime, model) for runtime in ("engine", "torch") for model in ("model", "dense")
    }
    assert all(c["agree"] for c in found["checks"])
    assert found["inputs"] == "given"
    assert found["n_inputs"] == 64
    assert found["notes"] == []

    (tmp_path / "dense.safetensors").unlink()
    found = timing.bench_run(folder, ("torch",), seconds=0.02)
    assert "dense.safetensors: cannot be read" in found["notes"][0]
    kept = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(re.sub("(?m)^weights: .*$", "weights: null", kept))
    found = timing.bench_run(folder, (), seconds=0.02, int8=True)
    assert {r["model"] for r in found["runs"]} == {"model", "dense", "dense_int8"}
    assert found["calibration"] == "minimum and maximum over 16 given inputs"
    assert "fresh weights" in found["notes"][0]
    (folder / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match=r"recipe\.yaml is missing; give the folder of a finished run"):
        timing.bench_run(folder, ("torch",))
