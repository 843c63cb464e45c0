"""Two processes under torchrun: masks and answers are bit-equal on both, when they go on from the middle too."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

from secateur.errors import UsageError
from secateur.training import ranks

WORKER = Path(__file__).with_name("rank.py")
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")


def torchrun(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    here = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(WORKER)]
    paths = os.pathsep.join([str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([*here, str(folder), *more], capture_output=True, text=True, timeout=500, env=env)


def held(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{r}.json").read_text("utf-8")) for r in (0, 1)]


def test_two_ranks_hold_the_same_masks_and_files_and_go_on_alike(tmp_path: Path) -> None:
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first = held(tmp_path)
    assert first[0] == first[1]
    assert first[0]["budget"] is True
    again = torchrun(tmp_path, "--resume")
    assert again.returncode == 0, again.stderr[-2000:]
    assert held(tmp_path) == first


def test_ranks_that_train_apart_are_told(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "--alone")
    assert done.returncode != 0
    assert "differ between ranks; wrap the model in DistributedDataParallel" in done.stderr


def test_sharded_weights_are_refused_in_a_sentence() -> None:
    class FullyShardedDataParallel(nn.Module):  # what torch's wrapper is known by; the real one needs several devices
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    with pytest.raises(UsageError, match=r"inner.weight is sharded over processes \(FSDP\).*DistributedDataParallel"):
        ranks.check_whole(FullyShardedDataParallel(), "Compressor")


def test_one_process_asks_nobody() -> None:
    like = torch.zeros(1)
    assert (ranks.count(), ranks.agreed(0.5, like)) == (1, 0.5)
    assert ranks.summed(like, 3) == (like, 3)
    ranks.check_same({"w": like}, "Compressor")
