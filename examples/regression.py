"""Not classification only: compress a network that computes where a robot arm's hand is.

    python examples/regression.py

Inputs: sine and cosine of four joint angles. Outputs: the hand's x and y. The metric is the mean squared error, so
lower is better; Secateur takes any loss and any metric.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from secateur import Result, compress
from secateur.data import TensorData

LENGTHS = torch.tensor([1.0, 0.8, 0.5, 0.3])


def arm(n: int, seed: int, batch_size: int) -> TensorData:
    """Random joint angles and where the hand then is."""
    angles = (torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) - 0.5) * 3
    direction = angles.cumsum(1)
    hand = torch.stack([(LENGTHS * direction.cos()).sum(1), (LENGTHS * direction.sin()).sum(1)], 1)
    return TensorData(torch.cat([angles.sin(), angles.cos()], 1), hand, batch_size)


def train_dense(data: TensorData, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(data))
    for epoch in range(epochs):
        for x, y in data.order(torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def error(net: nn.Module, data: TensorData) -> float:
    """Root mean squared distance of the hand, in the arm's units."""
    with torch.no_grad():
        squares: list[Tensor] = [((net(x) - y) ** 2).sum(1) for x, y in data]
    return float(torch.cat(squares).mean().sqrt())


def main() -> Result:
    train, valid, test = arm(4000, 1, 128), arm(1000, 2, 500), arm(2000, 3, 500)
    net = train_dense(train, epochs=12)
    result = compress(
        net,
        train,
        valid=valid,
        loss=mse_loss,
        recipe={
            "constrain": [{"where": "*", "with": ["topk", "uniform"]}],  # fewer weights, fewer bits, chosen together
            "solver": {"name": "gradual", "epochs": 10},
            "training": {"lr": 2e-3, "batch_size": 128},
            "bench": {"seconds": 0.2},
        },
        budget={"nbytes": "12KB"},
    )
    sizes = result.report["dense"]["nbytes"], result.report["compressed"]["nbytes"]
    print(f"file: {sizes[0]:,} -> {sizes[1]:,} bytes")
    print(f"error of the hand's place: {error(net, test):.4f} -> {error(result.model, test):.4f} (arm length 2.6)")
    return result


if __name__ == "__main__":
    main()
