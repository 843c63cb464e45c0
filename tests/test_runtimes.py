"""No run reports itself: other runtimes are imported in one place, which stops them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "src" / "secateur" / "shell" / "runtimes.py"
ROOMS = ("src", "tests", "benchmarks", "examples", "docs")
# Also in code that is kept as text and run elsewhere.
ELSEWHERE = re.compile(
    r"(?m)^\s*(?:import|from)\s+(?:onnxruntime|openvino)\b.*$"
    r"|(?:import_module|__import__|importorskip)\(\s*['\"](?:onnxruntime|openvino)\b.*$"
)
# `bench` asks for every use: sessions, parts handed over, the quantizer. ONNX Runtime's first report leaves after ten
# seconds, OpenVINO's at once.
CHILD = """
import sys, time
from secateur import cli
begin = time.monotonic()
code = cli._main(["bench", "m.onnx", "--against", "onnxruntime,openvino", "--seconds", "0.1", "--json"])
assert {"onnxruntime", "openvino"} <= sys.modules.keys()
time.sleep(max(0.0, float(sys.argv[1]) + begin - time.monotonic()))
sys.exit(code)
"""


def test_one_place_imports_them() -> None:
    paths = sorted({p for room in ROOMS for p in (ROOT / room).rglob("*.py")} - {PLACE, Path(__file__)})
    found = {str(p.relative_to(ROOT)): ELSEWHERE.findall(p.read_text(encoding="utf-8")) for p in paths}
    assert len(found) > 200
    assert {path: lines for path, lines in found.items() if lines} == {}, "use secateur.shell.runtimes"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home, the working folder of the children, and beside it what they are to run."""
    w = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Mish", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [w])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    home = tmp_path / "home"
    home.mkdir()
    (home / "m.onnx").write_bytes(made.SerializeToString())
    return home


def child(home: Path, seconds: float, before: tuple[str, ...] = ()) -> None:
    """Runs CHILD for that long, with no switch of the caller's and no sign of a CI machine."""
    drop = ("ORT_", "CI", "GITHUB_", "TF_", "XDG_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    done = subprocess.run(
        [*before, sys.executable, "-c", CHILD, str(seconds)],
        cwd=home,
        env={**environment, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_identifier_and_no_report_is_written(home: Path) -> None:
    """Both leave an identifier in the home folder on import, before they report anything."""
    child(home, 0)
    left = [str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and p.name != "m.onnx"]
    assert [p for p in left if "secateur" not in p] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nobody_is_asked_for_over_the_network(home: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    trace = ("strace", "-f", "-o", str(calls), "-e", "trace=%network")
    if subprocess.run([*trace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace here")
    child(home, 14, trace)
    sockets = [line for line in calls.read_text().splitlines() if "socket(" in line or "connect(" in line]
    assert sockets == []
