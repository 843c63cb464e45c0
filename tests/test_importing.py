"""Code that a user names runs; code that a folder names does not, and nothing stands in for what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import secateur
from secateur.errors import FormatError, UsageError
from secateur.export.rebuild import build_model
from secateur.shell.importing import called, imported


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, of which Python's search path knows nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    return tmp_path


def test_the_working_folder_is_searched_last_and_only_for_what_is_nowhere_else(here: Path) -> None:
    (here / "tarfile_of_mine.py").write_text("import xmlrpc\nvalue = xmlrpc.__file__\n")
    (here / "xmlrpc.py").write_text("raise RuntimeError('stands in for an installed package')\n")
    before = list(sys.path)
    assert imported("xmlrpc.client:MAXINT", "model", "a:b") == 2**31 - 1
    assert sys.path == before  # not needed, so not added
    value = imported("tarfile_of_mine:value", "model", "a:b")
    assert sys.path == [*before, str(here)]
    assert not value.startswith(str(here))


def test_a_name_taken_by_an_installed_package_says_where_that_is(here: Path) -> None:
    (here / "xmlrpc.py").write_text("net = 1\n")
    with pytest.raises(UsageError, match=r"xmlrpc \(.*xmlrpc.__init__\.py\) has no attribute 'net'"):
        imported("xmlrpc:net", "model", "a:b")


def test_code_that_leaves_python_is_a_mistake_like_any_other(here: Path) -> None:
    (here / "leaves_at_once.py").write_text("raise SystemExit(0)\n")
    (here / "leaves_later.py").write_text("def net(): raise SystemExit(0)\n")
    with pytest.raises(UsageError, match=r"importing leaves_at_once failed: SystemExit: 0 \(leaves_at_once.py:1\)"):
        imported("leaves_at_once:net", "model", "a:b")
    with pytest.raises(UsageError, match=r"calling it failed: SystemExit: 0 \(leaves_later.py:1\)"):
        called(imported("leaves_later:net", "model", "a:b"), "leaves_later:net", "model")


def test_python_dash_m_does_not_look_in_the_working_folder_first(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("print('CODE OF THE WORKING FOLDER')\nraise SystemExit(7)\n")
    argv = [sys.executable, "-m", "secateur", "--version"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"secateur {secateur.__version__}"), done.stderr


@pytest.mark.parametrize(
    "model",
    [
        "evil:net",
        "os:getpid",
        "secateur.zoo:weights.np.array",  # what a module of the zoo has imported is not a model of the zoo
        "secateur.zoo:load_weights",
        "secateur.zoo.lenet:lenet5",
        "secateur.zoo:weights.Path(width=1)",
        "evil:net(a=1)",
        "evil:" + "x" * 10_000,
    ],
)
def test_a_run_folder_does_not_choose_the_code_that_runs(model: str, here: Path) -> None:
    ran = here / "ran"
    (here / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nnet = None\n")
    save_file({"x": np.zeros(1, np.float32)}, here / "model.safetensors")
    (here / "surgery.json").write_text(json.dumps({"schema": 1, "model": model, "cuts": []}))
    with pytest.raises(UsageError, match=r"is code outside secateur; .* trust=True, .* or pass model=") as caught:
        secateur.load(here)
    assert len(str(caught.value)) < 400
    assert not ran.exists()
    if model == "evil:net":
        with pytest.raises(UsageError, match="gave a NoneType"):
            secateur.load(here, trust=True)
        assert ran.exists()


def test_a_model_of_the_zoo_needs_no_trust(here: Path) -> None:
    save_file({"x": np.zeros(1, np.float32)}, here / "model.safetensors")
    (here / "surgery.json").write_text(json.dumps({"schema": 1, "model": "secateur.zoo:lenet300", "cuts": []}))
    with pytest.raises(FormatError, match="does not fit the model"):
        secateur.load(here)


def test_a_model_is_named_with_its_arguments() -> None:
    half = build_model("secateur.zoo:resnet20(width=0.5)")
    assert sum(p.numel() for p in half.parameters() if p.ndim > 1) == 67_352
    for given in ("(0.5)", "(width=os.sep)", "(**{'width': 1})", "(width=1", "(width=1).eval()", "(width=1)(2)"):
        with pytest.raises(UsageError, match="in the brackets stand arguments by name"):
            build_model(f"secateur.zoo:resnet20{given}")
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'wide'.*does it take these arguments"):
        build_model("secateur.zoo:resnet20(wide=1)")


def test_a_run_folder_may_name_a_model_of_the_zoo_with_arguments(here: Path) -> None:
    save_file({"x": np.zeros(1, np.float32)}, here / "model.safetensors")
    (here / "surgery.json").write_text(
        json.dumps({"schema": 1, "model": "secateur.zoo:resnet20(width=0.5)", "cuts": []})
    )
    with pytest.raises(FormatError, match="does not fit the model"):
        secateur.load(here)
