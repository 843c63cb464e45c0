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


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks of one torchrun say: starting it takes longer than its trainings."""
    folder = tmp_path_factory.mktemp("ranks")
    here = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(WORKER)]
    paths = os.pathsep.join([str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([*here, str(folder)], capture_output=True, text=True, timeout=500, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"rank{r}.json").read_text("utf-8")) for r in (0, 1)]


def test_two_ranks_hold_the_same_masks_and_files_and_go_on_alike(told: list[dict[str, Any]]) -> None:
    first, second = told
    assert first["whole"] == second["whole"]
    assert first["whole"]["budget"] is True
    assert [first["resumed"], second["resumed"]] == [first["whole"]] * 2


def test_ranks_that_train_apart_are_told(told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert "differ between ranks; wrap the model in DistributedDataParallel" in rank["alone"]


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
