"""Law 7 under fire: runs killed with SIGKILL at many moments and resumed must end in the bytes of an undisturbed run.

    python tests/kills.py                          # 50 moments over five kinds of run, minutes
    python tests/kills.py --moments 400 --seed 1   # others, for a night
    python tests/kills.py --only admm --moments 3

A moment is a step of training or an operation on a file (flush, rename, removal), before or after it; a third of the
moments lie in the final writing. Every run is a fork of this process, so that importing torch is paid once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur import api, graph
from secateur.data.tensors import TensorData
from secateur.export import written
from secateur.recipe import Recipe

FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "recipe.yaml")
BASE: dict[str, Any] = {
    "model": "kills:build",
    "data": "kills:data",
    "dense": {"epochs": 2, "lr": 0.02},
    "training": {"lr": 0.01, "threads": 1, "average": 0.9, "checkpoint_seconds": 0, "warmup_steps": 2},
    "bench": {"seconds": 0.001, "against": []},
    "seed": 4,
}
GRADUAL = {"name": "gradual", "epochs": 3, "every": 3, "stages": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "gradual": {
        "budget": {"nbytes": "350B"},
        "constrain": [{"where": "*", "with": "topk"}],
        "solver": GRADUAL,
        "saliency": {"name": "abs_v_power"},
        "baselines": ["one_shot"],
    },
    "admm": {
        "budget": {"nnz": 40},
        "constrain": [{"where": "*", "with": "topk"}],
        "solver": {"name": "admm", "epochs": 3, "round_steps": 6},
        "baselines": [],
    },
    "codebook": {
        "budget": {"nbytes": "300B"},
        "constrain": [{"where": "*", "with": ["topk", "codebook"]}],
        "solver": GRADUAL,
        "baselines": ["one_shot_raw"],
    },
    "rows_macs": {
        "budget": {"macs": 60},
        "constrain": [{"where": "0*", "with": "rows"}],
        "solver": {"name": "gradual", "epochs": 3, "every": 3},
        "baselines": [],
    },
    "accuracy_drop": {
        "budget": {"accuracy_drop": "4pt"},
        "constrain": [{"where": "*", "with": "topk"}],
        "solver": {"name": "gradual", "epochs": 1, "every": 2},
        "baselines": [],
    },
}


def build() -> nn.Module:
    """The net of all runs."""
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))


def data() -> tuple[TensorData, TensorData]:
    """Three classes that two of eight inputs tell apart."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (384,), generator=g)
    x = torch.randn(384, 8, generator=g) * 0.5
    x[:, :2] += torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])[y]
    return TensorData(x[:256], y[:256], 32), TensorData(x[256:], y[256:], 64)


class Moments:
    """Counts what a run does; at the moment `kill` the process ends as by a power cut."""

    def __init__(self, kill: int | None) -> None:
        self.n, self.kill, self.last_step = 0, kill, 0
        for name in ("fsync", "replace", "unlink", "rmdir"):
            setattr(os, name, self._counted(getattr(os, name)))

    def tick(self) -> None:
        """One moment."""
        self.n += 1
        if self.n == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, progress: Any) -> None:
        """A step of training is a moment."""
        self.tick()
        self.last_step = self.n

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            answer = operation(*args, **kwargs)
            self.tick()
            return answer

        return run


def forked(kind: str, out: Path, resume: bool = False, kill: int | None = None) -> tuple[int, list[int]]:
    """Wait status of a run in a process of its own, and [moments, moment of the last step]."""
    counts = out.with_suffix(".counts")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            recipe, moments = Recipe.from_dict({**BASE, **RECIPES[kind]}), Moments(kill)
            api.run(recipe, out, resume=resume, on_progress=moments.step)
            counts.write_text(json.dumps([moments.n, moments.last_step]))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status, json.loads(counts.read_text()) if status == 0 else []


def warm_up() -> None:
    """Import in this process what tracing and export import late: forks share it, 2 of 5 s of a run.

    One thread and no backward pass: a process that has started threads must not fork.
    """
    torch.set_num_threads(1)
    net, x = build().eval(), torch.zeros(2, 8)
    written.write(net, graph.trace(net, x), graph.settle(net, x))


def timeless(value: Any) -> Any:
    """A report without times, dates and measured costs."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "date", "latency_ms", "bench")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def differences(whole: Path, other: Path) -> list[str]:
    """Names of what is not as in the undisturbed run's folder."""
    names = [sorted(p.relative_to(d).as_posix() for p in d.rglob("*")) for d in (whole, other)]
    found = [f"{name} left or missing" for name in set(names[0]) ^ set(names[1])]
    found += [name for name in FILES if (whole / name).read_bytes() != (other / name).read_bytes()]
    reports = [timeless(json.loads((d / "report.json").read_text())) for d in (whole, other)]
    return found + (["report.json"] if reports[0] != reports[1] else [])


def moments_of(counts: list[int], n: int, g: random.Random) -> list[int]:
    """`n` moments, a third of them (rounded up) in the final writing."""
    total, last_step = counts
    late = -(-n // 3)
    early = sorted(g.sample(range(1, last_step + 1), n - late))
    return early + sorted(g.sample(range(last_step + 1, total + 1), min(late, total - last_step)))


def check(kind: str, n: int, seed: int, folder: Path) -> list[str]:
    """One sentence for each of `n` moments after which the run did not end as it should."""
    whole, wrong = folder / f"{kind}-whole", []
    status, counts = forked(kind, whole)
    if status != 0:
        return [f"{kind}: the undisturbed run failed"]
    for moment in moments_of(counts, n, random.Random(f"{kind} {seed}")):
        out = folder / f"{kind}-{moment}"
        status, _ = forked(kind, out, kill=moment)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        status, _ = forked(kind, out, resume=True)
        found = ["the resumed run failed"] if status else differences(whole, out)
        if not killed:
            found.append("was not killed")
        wrong += [f"{kind}, moment {moment} of {counts[0]}: {'; '.join(found)}"] if found else []
        shutil.rmtree(out)
    return wrong


def main() -> int:
    """Exit code: 1 when a run did not end in the same bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=50, help="in all, spread over the kinds of run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(RECIPES), action="append")
    asked = parser.parse_args()
    sys.modules["kills"] = sys.modules[__name__]  # the recipes name this file's model and data
    kinds = asked.only or list(RECIPES)
    warm_up()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SECATEUR_CACHE"] = folder
        for i, kind in enumerate(kinds):
            n = asked.moments // len(kinds) + (i < asked.moments % len(kinds))
            found = check(kind, n, asked.seed, Path(folder))
            print(f"{kind}: {n - len(found)} of {n} moments ended in the same bytes", flush=True)
            wrong += found
    for sentence in wrong:
        print(sentence)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
