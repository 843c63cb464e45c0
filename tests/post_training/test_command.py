"""`secateur quantize`: exit codes, one message, JSON, no torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from post_training import nets
from secateur import cli
from secateur.engine import InferenceSession
from secateur.formats import unpack

X = np.random.default_rng(0).random((6, 3), np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file and its examples."""
    layers = [("MatMul", np.random.default_rng(1).standard_normal(s).astype(np.float32)) for s in ((3, 8), (8, 2))]
    (tmp_path / "m.onnx").write_bytes(nets.dense(layers))
    np.save(tmp_path / "x.npy", X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    return cli._main(["quantize", *argv])


def test_a_file_becomes_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("m.onnx", "--calib", "x.npy", "-o", "int8.onnx") == 0
    said = capsys.readouterr()
    assert "2 of 2 layers in int8" in said.out
    assert "the largest score is the same one for" in said.out
    assert "measuring activations: 1/1 batches" in said.err
    assert run("m.onnx", "--calib", "x.npy", "-o", "int8.sct", "--json", "-q", "--bench", "--seconds", "0.01") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert not said.err
    assert report["latency_ms"]["int8"] > 0
    assert [r["arithmetic"] for r in report["layers"]] == ["int8", "int8"]
    answers = [InferenceSession(folder / f"int8.{end}").run(None, {"x": X})[0] for end in ("onnx", "sct")]
    assert np.array_equal(*answers)
    assert len(unpack((folder / "int8.sct").read_bytes())) > 0
    # The packed form of the float file is as good a source.
    assert cli._main(["pack", "m.onnx", "-o", "m.sct"]) == 0
    assert run("m.sct", "--calib", "x.npy", "-o", "again.onnx", "-q") == 0
    assert np.array_equal(InferenceSession(folder / "again.onnx").run(None, {"x": X})[0], answers[0])


MISTAKES = [
    (["m.onnx", "--calib", "y.npy", "-o", "o.onnx"], "calib y.npy: no such file"),
    (["n.onnx", "--calib", "x.npy", "-o", "o.onnx"], "n.onnx: no such file"),
    (["x.npy", "--calib", "x.npy", "-o", "o.onnx"], "is a NumPy array"),
    (["m.onnx", "--calib", "x.npy", "-o", "m.onnx"], "is read by this command"),
    (["m.onnx", "--calib", "x.npy", "-o", "no/o.onnx"], "the folder no does not exist"),
    (["m.onnx", "--calib", "x.npy", "-o", "o.onnx", "--keep", "fc"], "keep: pattern 'fc' matches no layer"),
    (["m.onnx", "--calib", "x.npy", "-o", "o.onnx", "--observer", "mean"], "observer: got 'mean'; minmax, moving"),
    (["m.onnx", "--calib", "x.npy", "-o", "o.onnx", "--percentile", "3"], "percentile: got 3"),
]


@pytest.mark.parametrize(("argv", "said"), MISTAKES)
def test_mistakes(folder: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*argv) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (folder / "o.onnx").exists()


def test_no_torch_is_imported(folder: Path) -> None:
    code = """
import sys
from secateur.cli import _main
assert _main(["quantize", "m.onnx", "--calib", "x.npy", "-o", "int8.onnx", "-q", "--bench", "--seconds", "0.01"]) == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "one call in the engine" in done.stdout
