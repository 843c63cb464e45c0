"""One rank of three trainings under torchrun: `rank.py FOLDER`; writes what it holds at the end of each.

Whole; from the middle again, by fresh objects; and every rank by itself, which must be refused.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from integrations import small
from secateur import Compressor
from secateur.errors import UsageError

STEPS, SAVED = 24, 12
RECIPE = {**small.RECIPE, "saliency": {"name": "wanda"}}


def trained(folder: Path, start: int = 0, alone: bool = False) -> dict[str, Any]:
    """What this rank holds at the end of a training that begins at a step; alone: without torch's wrapper."""
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    model = net if alone else DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = (part[rank::n] for part in small.examples())  # every rank its own examples
    compressor = Compressor(
        model,
        RECIPE,
        small.LIKE,
        optimizer=optimizer,
        total_steps=STEPS,
        evaluate=lambda m: -nn.functional.cross_entropy(m(x), y).item(),  # another value on every rank
        calibration=[x],
    )
    kept = folder / f"rank{rank}.pt"
    if start:
        saved = torch.load(kept, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        compressor.load_state_dict(saved["compressor"])
    for step in range(start, STEPS):
        at = torch.arange(4) + 4 * step
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[at % len(x)]), y[at % len(x)]) + compressor.penalty()
        loss.backward()
        optimizer.step()
        compressor.step()
        if step + 1 == SAVED:
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "compressor": compressor.state_dict()}, kept)
    result = compressor.finalize()
    masks = b"".join((p != 0).numpy().tobytes() for p in result.model.parameters())
    held = {"sct": hashlib.sha256(result.files.sct).hexdigest(), "masks": hashlib.sha256(masks).hexdigest()}
    report = {"metric": result.report["compressed"]["metric"], "budget": result.report["budget"][0]["met"]}
    return held | report


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    told: dict[str, Any] = {"whole": trained(folder), "resumed": trained(folder, SAVED)}
    try:
        trained(folder, alone=True)
    except UsageError as e:
        told["alone"] = str(e)
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(told), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
