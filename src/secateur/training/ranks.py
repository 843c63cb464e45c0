"""Several processes that train one model together: what one of them measured, and whether all hold the same.

Gradients are summed by the user's DistributedDataParallel, so that everything that is computed from weights and
gradients is the same on every rank. What is measured (a metric, inputs of layers) need not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist

from secateur.errors import UsageError


def several() -> bool:
    """Is this one of several processes?"""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if several() else 1


def agreed(value: float, like: Tensor) -> float:
    """The value of rank 0, for all; `like` says on which device ranks talk."""
    if not several():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=like.device)
    dist.broadcast(told, 0)
    return float(told)


def summed(total: Tensor, n: int) -> tuple[Tensor, int]:
    """Sums over all ranks, bit-equal on each."""
    if not several():
        return total, n
    total, count = total.clone(), torch.tensor([n], dtype=torch.int64, device=total.device)
    dist.all_reduce(total)
    dist.all_reduce(count)
    return total, int(count)


def mean(value: Tensor) -> Tensor:
    """The mean over all ranks, bit-equal on each."""
    total, n = summed(value, 1)
    return total / n


def check_same(weights: Mapping[str, Tensor], subject: str) -> None:
    """Raise on every rank when one of the tensors is not bit-equal on all of them."""
    if not several() or not weights:
        return
    digests = [
        hashlib.sha256(w.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).digest()
        for w in weights.values()
    ]
    device = next(iter(weights.values())).device
    mine = torch.tensor(list(b"".join(digests)), dtype=torch.uint8, device=device).reshape(len(digests), -1)
    all_of_them = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, mine)
    differ = torch.stack([(other != all_of_them[0]).any(dim=1) for other in all_of_them]).any(dim=0)
    if names := [name for name, bad in zip(weights, differ.tolist(), strict=True) if bad]:
        raise UsageError(
            f"{subject}: {names[0]}{f' and {len(names) - 1} others' if len(names) > 1 else ''} differ between ranks; "
            "wrap the model in DistributedDataParallel and step every rank alike"
        )


def check_whole(model: nn.Module, subject: str) -> None:
    """Refuse a model whose weights no process holds whole."""
    sharded = any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules())
    for name, p in model.named_parameters():
        if sharded or type(p).__name__ == "DTensor":
            raise UsageError(
                f"{subject}: {name} is sharded over processes (FSDP), and a set is one of whole weights; train with "
                "DistributedDataParallel, or compress the gathered model"
            )
