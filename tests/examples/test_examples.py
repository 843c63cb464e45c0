"""Every script in examples/ runs as it is written and does what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
# torch's exporter warns about packages that are not there and about its own inner changes.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def script(name: str) -> dict:
    """The names a script defines, without running its main part."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text("utf-8")
    assert all(f'script("{path.stem}")' in here for path in EXAMPLES.glob("*.py"))


def test_bring_your_own_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = script("bring_your_own_onnx")
    names["make_pruned"](tmp_path / "pruned.onnx")
    names["pack_and_run"](tmp_path / "pruned.onnx")
    said = capsys.readouterr().out
    assert "the packed file computes the same bits as the ONNX file: True" in said
    assert "engine" in said
    small, large = (tmp_path / "pruned.sct").stat().st_size, (tmp_path / "pruned.onnx").stat().st_size
    assert large > 7 * small  # 90 % zeros, positions and 32-bit values of the rest


def test_own_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = script("own_loop")["main"](tmp_path, 5, 8)
    said = capsys.readouterr().out
    assert (tmp_path / "model.sct").stat().st_size <= 30_000
    assert float(re.search(r"compressed: ([0-9.]+)%", said).group(1)) > 93
    assert result.report["budget"][0]["met"] is True


def test_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = script("detector")
    result = names["main"](tmp_path, sizes=(64, 16, 16), epochs=(1, 1), width=0.5)
    assert capsys.readouterr().out.count("mAP") == 3
    assert result.report["budget"][0]["met"] is True
    whole = sum(p.numel() for p in names["shape_detector"](0.5).parameters())
    assert (
        sum(p.numel() for p in result.model.parameters()) < 0.5 * whole
    )  # 40 % of the filters of every group are gone
    x = names["shapes"].load(sizes=(1, 1, 4)).test.inputs
    session = names["InferenceSession"](tmp_path / "model.sct")
    answer = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(answer, result.model.eval()(x).numpy(), rtol=1e-4, atol=1e-4)


def test_regression() -> None:
    names = script("regression")
    result = names["main"]()
    assert result.report["compressed"]["nbytes"] <= 12_000
    assert names["error"](result.model, names["arm"](2000, 3, 500)) < 0.15


def test_two_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    names = script("two_inputs")
    result = names["main"]()
    said = capsys.readouterr().out
    assert "inputs of the packed file: ['left', 'right']" in said
    assert len(result.files.sct) <= 4_000
    with torch.no_grad():
        out = result.model(left=torch.zeros(3, 32), right=torch.zeros(3, 32)).numpy()
    assert np.isfinite(out).all()


@pytest.mark.filterwarnings("ignore")
def test_transformers_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    result = script("transformers_trainer")["main"](tmp_path, 8, 10)
    assert (tmp_path / "secateur" / "model.sct").stat().st_size <= 30_000
    assert float(re.search(r"compressed: ([0-9.]+)%", capsys.readouterr().out).group(1)) > 85
    assert result.report["budget"][0]["met"] is True


@pytest.mark.filterwarnings("ignore")
def test_lightning_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pytorch_lightning")
    result = script("lightning_trainer")["main"](tmp_path, 6, 10)
    assert (tmp_path / "model.sct").stat().st_size <= 30_000
    assert float(re.search(r"compressed: ([0-9.]+)%", capsys.readouterr().out).group(1)) > 93
    assert result.report["budget"][0]["met"] is True
