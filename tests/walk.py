"""A net's walk through one attempt: from which file to which it is handed over, and how often a reader turns back.

    python tests/walk.py

A stay is a pair of files in two rooms of which one calls the other with the net: a `Net`, its module, or its weights by
name. Many calls between the same two files are one stay. A stay in a file where the net has been before is a *return*.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import secateur
from secateur.run import search
from secateur.run.net import Net

SRC = Path(secateur.__file__).parent
_TALK = {"shell"}  # reading files and showing progress: no stop of the net


def file_of(frame: FrameType | None) -> Path | None:
    """The file of a frame's code, below our source; None where it is not ours."""
    return None if frame is None else _ours(frame.f_code.co_filename)


@cache
def _ours(name: str) -> Path | None:
    """Asked at every call of every function, so each name is looked at once."""
    path = Path(name)
    return path.relative_to(SRC) if path.is_relative_to(SRC) else None


class Walk:
    """A profiler that notes where the net is handed over.

    Attributes:
        stays: (file that calls, file that is called) -> the first such call, in order.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self.stays: dict[tuple[Path, Path], str] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        file, code = file_of(frame), frame.f_code
        if event != "call" or file is None or code.co_name.startswith("<"):
            return
        caller = frame.f_back
        while caller is not None and file_of(caller) is None:
            caller = caller.f_back  # torch and dataclasses in between
        before = file_of(caller)
        if caller is None or before is None or before.parts[0] == file.parts[0] or file.parts[0] in _TALK:
            return
        given = [frame.f_locals.get(n) for n in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        if (before, file) not in self.stays and any(self._is_net(x) for x in given):
            self.stays[before, file] = f"{caller.f_code.co_qualname} -> {code.co_qualname}"

    def _is_net(self, value: Any) -> bool:
        if isinstance(value, Net):
            return True
        if isinstance(value, nn.Module):
            return any(isinstance(m, nn.Linear) for m in value.modules())
        if type(value) is dict and value:
            return all(isinstance(v, Tensor) for v in value.values()) and value.keys() & self._names != set()
        return False

    @property
    def returns(self) -> int:
        """Stays in files where the net has been."""
        return len(self.stays) - len({file for _, file in self.stays})


def walk(recipe: Mapping[str, Any] | None = None) -> Walk:
    """Follow a small net through the approach, cut, polish, snap and writing of one attempt."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    data = [(torch.randn(32, 6), torch.randint(0, 4, (32,))) for _ in range(4)]
    seen = Walk({n for n, _ in net.named_parameters()})
    real = search.attempt

    def followed(*args: Any) -> Any:
        before = sys.getprofile()
        sys.setprofile(seen)
        try:
            return real(*args)
        finally:
            sys.setprofile(before)

    search.attempt = followed
    try:
        secateur.compress(
            net,
            data,
            recipe=recipe
            or {
                "constrain": {"with": ["topk", "codebook"]},
                "solver": {"name": "gradual", "epochs": 4, "every": 2},
                "baselines": [],
                "bench": {"against": [], "seconds": 0.01},
                "training": {"threads": 1},
            },
            budget={"nbytes": 300},
            on_progress=False,
        )
    finally:
        search.attempt = real
    return seen


if __name__ == "__main__":
    found = walk()
    for (before, file), call in found.stays.items():
        print(f"{before!s:26} {file!s:26} {call}")
    print(f"{len(found.stays)} stays, {len({file for _, file in found.stays})} files, {found.returns} returns")
