"""Coverage loses no line of ours where its tracer rests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = """\
from resting import rested

def torchs(fail):
    x = 1
    if fail:
        raise ValueError
    return x

def ours(fail):
    y = 1
    try:
        y = rested(torchs)(fail)
    except ValueError:
        y = 2
    return y

def outer():
    z = ours(False)
    z = ours(True)
    return z
"""
SCRIPT = """\
import coverage
measured = coverage.Coverage(config_file=False, data_file=None, include=["*/module.py"])
measured.start()
import module
module.outer()
measured.stop()
print(*sorted(measured.get_data().lines(module.__file__)))
"""


def test_the_tracer_misses_the_call_that_it_rests_for_and_nothing_after_it(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    paths = f"import sys; sys.path[:0] = {[str(tmp_path), str(Path(__file__).parent)]!r}\n"
    told = subprocess.run([sys.executable, "-c", paths + SCRIPT], capture_output=True, text=True, check=True).stdout
    lines = MODULE.splitlines()
    code = [n for n, line in enumerate(lines, 1) if line.strip() and line.strip() != "try:"]
    asleep = range(lines.index("    x = 1") + 1, lines.index("    return x") + 2)
    assert [int(n) for n in told.split()] == sorted({*code, lines.index("    try:") + 1} - {*asleep})
