"""Mutation testing of the house: a fixed list of deliberate faults, and whether the tests that should notice them do.

    python tests/mutation.py                     # all faults in Python: minutes
    python tests/mutation.py --only verify       # those whose file or text holds the word
    python tests/mutation.py --engine            # also those in C++, each rebuilt: an hour

Run by hand before a release. Every fault is put into a copy of the tree, never into the tree; the result stands in
`benchmarks/results/mutation.json`. A fault *survives* when its tests pass, and is *broken* when they cannot run at all
or its text is gone from the file: both need mending here or in the tests. Python faults run in forks of one process
that has imported torch already.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mutation_faults import FAULTS, Fault

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "mutation.json"
_PATIENCE = 600  # seconds; a fault that makes its tests hang is noticed by whoever waits
_SEEN, _PASSED = 1, 0  # pytest's exit codes; others say that the tests did not run


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: caught | survived | broken."""

    fault: Fault
    word: str
    seconds: float


def copied(folder: Path) -> Path:
    """The tree without what tests write and git ignores, but with the built module."""
    tree = folder / "tree"
    skip = shutil.ignore_patterns("__pycache__", ".git", ".venv", "build", "*.pyc")
    for name in ("src", "tests", "engine", "docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree / path.name)
    ask = "from secateur.native import _native; print(_native.__file__)"
    built = Path(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    shutil.copy(built, tree / "src/secateur/native" / built.name)
    return tree


def judged(tree: Path, fault: Fault) -> Verdict:
    """Put the fault in, run its tests, take it out again."""
    path, began = tree / fault.file, time.monotonic()
    whole = path.read_text()
    if whole.count(fault.old) != 1:
        return Verdict(fault, "broken", 0.0)
    path.write_text(whole.replace(fault.old, fault.new))
    try:
        status = _rebuilt(tree, fault) if fault.compiled else _forked(tree, fault)
    finally:
        path.write_text(whole)
    word = {_PASSED: "survived", _SEEN: "caught"}.get(status, "broken")
    return Verdict(fault, word, time.monotonic() - began)


def _forked(tree: Path, fault: Fault) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(_tested(tree, fault))
    return _waited(pid)


def _tested(tree: Path, fault: Fault) -> int:
    """pytest's exit code, in a process of its own."""
    import pytest

    os.chdir(tree)
    # An editable install finds the original tree before any path does: its faults would all survive.
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
    sys.path[:0] = [str(tree / "src"), str(tree)]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        return int(pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", "--show-capture=no", *fault.tests]))
    except BaseException:
        return 70


def _waited(pid: int) -> int:
    """Exit code of the child; a child that hangs is ended, and its fault was noticed."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return _SEEN


def _rebuilt(tree: Path, fault: Fault) -> int:
    """Build the Python module of the faulty tree, and run the tests against it."""
    own = {**os.environ, "CCACHE_BASEDIR": str(tree), "CCACHE_NOHASHDIR": "1"}  # objects of another tree serve
    if subprocess.run(_build_command(tree), env=own, capture_output=True, check=False).returncode != 0:
        return 70
    return _forked(tree, fault)


def _build_command(tree: Path) -> list[str]:
    folder = tree / "build" / "py"  # as deep as a developer's own, so that ccache finds its relative paths again
    build = f"cmake --build {folder} -j2 --target _native"
    if (folder / "CMakeCache.txt").exists():
        return ["sh", "-c", build]
    import nanobind

    options = f"-DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE={sys.executable} -Dnanobind_ROOT={nanobind.cmake_dir()}"
    cached = " -DCMAKE_CXX_COMPILER_LAUNCHER=ccache" if shutil.which("ccache") else ""
    return ["sh", "-c", f"cmake -S {tree} -B {folder} -G Ninja {options}{cached} && {build}"]


def warm_up() -> None:
    """Import what every fork would import again; nothing of secateur, which each takes from the faulty tree."""
    import onnx  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch.export
    import yaml  # noqa: F401

    torch.set_num_threads(1)  # a process that has started threads must not fork
    assert not any(name.partition(".")[0] == "secateur" for name in sys.modules)


def recorded(verdicts: list[Verdict], old: list[dict[str, object]]) -> dict[str, object]:
    """The result, with where it comes from; verdicts of faults that were not run now stay as they were."""
    now = {v.fault.name: v.word for v in verdicts}
    words = {str(r["name"]): str(r["verdict"]) for r in old} | now
    rows = [{"name": f.name, "file": f.file, "verdict": words[f.name]} for f in FAULTS if f.name in words]
    survived = sum(r["verdict"] != "caught" for r in rows)
    return {
        "what": "deliberate faults put into a copy of the tree, and whether the named tests notice; tests/mutation.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": round(sum(v.seconds for v in verdicts)),
        "n_faults": len(rows),
        "n_not_caught": survived,
        "share_not_caught": round(survived / max(len(rows), 1), 4),
        "not_run": [f.name for f in FAULTS if f.name not in words],
        "faults": rows,
    }


def _git(*argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Exit code: 1 when a fault was not caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="faults whose name or file holds this text")
    parser.add_argument("--engine", action="store_true", help="also the faults in C++, each rebuilt")
    parser.add_argument("--fresh", action="store_true", help="forget the verdicts of earlier runs")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True  # two faults of one file in one second would share their bytecode
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    warm_up()
    if asked.fresh:
        RESULT.unlink(missing_ok=True)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for fault in FAULTS:
            if asked.only and asked.only not in fault.name and asked.only not in fault.file:
                continue
            if fault.compiled and not asked.engine:
                continue
            verdicts.append(judged(tree, fault))
            print(f"{verdicts[-1].word:9} {verdicts[-1].seconds:6.1f} s  {fault.name}", flush=True)
            known = json.loads(RESULT.read_text())["faults"] if RESULT.exists() else []
            RESULT.write_text(json.dumps(recorded(verdicts, known), indent=1) + "\n")
    bad = [v for v in verdicts if v.word != "caught"]
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} faults caught")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
