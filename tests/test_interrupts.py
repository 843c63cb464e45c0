"""Ctrl-C and SIGTERM, wherever they fall: one line, exit 3, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secateur import cli, formats
from secateur.api import compression
from secateur.proof import verify
from secateur.shell import interrupts, saving

Capture = pytest.CaptureFixture[str]
BOTH = pytest.mark.parametrize("number", interrupts.SIGNALS, ids=lambda n: n.name)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """As in a process that is about to call `main`; those of the test runner come back."""
    before = {n: signal.signal(n, signal.default_int_handler) for n in interrupts.SIGNALS}
    hook = sys.unraisablehook
    yield
    interrupts._raised.clear()
    sys.unraisablehook = hook
    for n, handler in before.items():
        signal.signal(n, handler)


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def main(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def plain(number: int) -> None:
    interrupt(number)
    time.sleep(10)


def swallowed(number: int) -> None:
    with contextlib.suppress(BaseException):
        plain(number)


def replaced(number: int) -> None:
    try:
        plain(number)
    except KeyboardInterrupt:
        raise RecursionError("maximum recursion depth exceeded") from None


def in_a_finalizer(number: int) -> None:
    class Dying:
        def __del__(self) -> None:
            plain(number)

    Dying()
    time.sleep(10)


@BOTH
@pytest.mark.parametrize("where", [plain, swallowed, replaced, in_a_finalizer])
def test_an_interrupt_is_one_line_and_exit_3_whatever_others_make_of_it(
    where: Callable[[int], None], number: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(model: bytes, exact: bool) -> bytes:
        where(number)
        return b"packed"

    monkeypatch.setattr(formats, "pack", pack)
    (tmp_path / "m.onnx").write_bytes(b"x")
    begin = time.monotonic()
    assert main("pack", tmp_path / "m.onnx", "-o", tmp_path / "m.sct") == 3
    assert time.monotonic() - begin < 5
    assert capsys.readouterr().err == "secateur: interrupted\n"
    assert {p.name for p in tmp_path.iterdir()} <= {"m.onnx", "m.sct"}


@BOTH
def test_a_signal_while_a_file_is_written_waits_for_its_end(
    number: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: interrupt(number))
    monkeypatch.setattr(formats, "pack", lambda model, exact: b"packed")
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert main("pack", tmp_path / "m.onnx", "-o", tmp_path / "m.sct") == 3
    assert capsys.readouterr().err == "secateur: interrupted\n"
    assert (tmp_path / "m.sct").read_bytes() == b"packed"
    assert len(list(tmp_path.iterdir())) == 2


@BOTH
def test_a_lock_is_taken_away(number: int, tmp_path: Path) -> None:
    interrupts.catch()
    with pytest.raises(KeyboardInterrupt), saving.locked(tmp_path / "made" / "run"):
        interrupt(number)
    assert list(tmp_path.iterdir()) == []


def test_what_the_loop_did_not_ask_about_is_raised_at_its_end() -> None:
    interrupts.catch()
    reached: list[bool] = []

    def loop(n_signals: int) -> None:
        with interrupts.watched() as asked:
            for _ in range(n_signals):
                interrupt(signal.SIGTERM)
            reached.append(asked())
        reached.append(False)

    with pytest.raises(KeyboardInterrupt):
        loop(1)
    assert reached == [True]
    with pytest.raises(KeyboardInterrupt):
        loop(2)
    assert reached == [True]  # the second stops at once


def test_what_the_parent_had_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.catch()
    with interrupts.watched() as asked:
        interrupt()
        assert not asked()
    with interrupts.held():
        interrupt()
    assert not interrupts.came()


def test_a_test_that_leaves_a_handler_fails_itself(tmp_path: Path) -> None:
    """Not the tests after it, whose children would ignore what it ignored."""
    for name in ("conftest.py", "brief.py", "resting.py", "forks.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    (tmp_path / "test_two.py").write_text(
        "import signal, subprocess, sys\n"
        "def test_leaves(): signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "def test_after():\n"
        "    child = 'import os; os.kill(os.getpid(), 15)'\n"
        "    assert subprocess.run([sys.executable, '-c', child]).returncode == -signal.SIGTERM\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),  # a runner that ignores it itself
    )
    assert "the test leaves SIGTERM changed for those after it" in done.stdout
    assert "2 passed, 1 error" in done.stdout


def test_final_writing_is_interrupted_and_resumed(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn, zeros

    from secateur import api
    from secateur.api import result
    from secateur.export.written import Written

    def trained(
        asked: Any, recipe: Any, ledger: Any, on_progress: Any, folder: Path, write: Any, *rest: Any
    ) -> api.Result:
        ledger.fact("trained", lambda: True)
        files = Written(nn.Linear(1, 1), b"onnx", lambda: b"sct", [])
        result.save_network(files, "", "m", folder, write)
        return api.Result(nn.Linear(1, 1), {"model": "m"}, files, "")

    replace = saving._replace_at_once

    def interrupted(path: Path, data: bytes) -> None:
        replace(path, data)
        if path.name == "model.sct":
            interrupt(signal.SIGTERM)

    monkeypatch.setattr(compression, "by_name", lambda *args: SimpleNamespace(inputs=zeros(1, 1)))
    monkeypatch.setattr(compression, "_compress", trained)
    monkeypatch.setattr(compression, "write_page", lambda *args: None)
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text("constrain: [{with: topk, level: {sparsity: 0.95}}]\n")
    with monkeypatch.context() as patched:
        patched.setattr(saving, "_replace_at_once", interrupted)
        assert main("compress", recipe, "-o", out, "-q") == 3
    assert capsys.readouterr().err == f"secateur: {out}: interrupted; --resume goes on from the last checkpoint\n"
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint", "model.onnx", "model.sct"]
    assert main("compress", recipe, "-o", out, "-q", "--resume", "--json") == 0
    assert {p.name for p in out.iterdir()} == set(verify.FILES)


@BOTH
def test_a_signal_during_the_first_imports(number: int) -> None:
    """The handlers are there before anything large is imported; what falls into an import may come out as anything."""
    code = f"""
import os, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Hook())
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from secateur.cli import main
main(["methods"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "secateur: interrupted\n")
