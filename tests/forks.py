"""Runs of `toy.main` in processes of their own that import nothing again: forks of a parent that has imported it all.

Most of a small run's time would be torch's import and the first export (4 of 6 s). What is resumed has another parent
than the run it is compared with, and the two hash differently: what hangs on a set's order differs between them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """A process: exit status, or minus the signal that killed it; what it wrote."""

    returncode: int
    stderr: str


class Forks:
    """Starts runs, each of the parent that its folder's name stands for: `whole` of one, all others of the other."""

    def __init__(self, parents: list[subprocess.Popen[str]]) -> None:
        self._parents = parents

    def run(
        self, folder: Path, out: str, resume: bool = False, kill: tuple[str, int] = ("", 0), sig: str = ""
    ) -> Ended:
        """`toy.main` of the folder, which ends itself at a step of a stage, by SIGKILL or the signal that is named."""
        parent = self._parents[out == "whole"]
        assert parent.stdin is not None
        assert parent.stdout is not None
        asked = {"folder": str(folder), "argv": [out, resume, *kill], "signal": sig or "SIGKILL"}
        parent.stdin.write(json.dumps(asked) + "\n")
        parent.stdin.flush()
        return Ended(int(parent.stdout.readline()), (folder / "stderr").read_text())


@contextmanager
def started() -> Iterator[Forks]:
    """Two parents; they end with the block."""
    with ExitStack() as stack:
        parents = []
        for seed in (1, 2):  # of the hashes
            environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)}
            argv = [sys.executable, __file__]
            parent = subprocess.Popen(
                argv,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            parents.append(stack.enter_context(parent))
        yield Forks(parents)


def serve() -> None:
    """A line of JSON in, an exit code out."""
    from kills import warm_up

    warm_up()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_child(json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _child(asked: dict[str, Any]) -> int:
    os.chdir(asked["folder"])
    sys.path.insert(0, asked["folder"])
    os.environ["SIGNAL"] = asked["signal"]
    written = os.open("stderr", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(written, 1)
    os.dup2(written, 2)
    try:
        import toy

        toy.main(*asked["argv"])
        return 0
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    serve()
