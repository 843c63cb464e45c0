"""Compress a detector in a training loop of your own: boxes, a loss of several parts, mean average precision.

    python examples/detector.py [FOLDER]

A small detector of the YOLO kind learns to find circles, rectangles and triangles in generated pictures; then filters
leave it and single weights become zero, within a share of its multiply-adds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from secateur import Compressor, InferenceSession, Result, load
from secateur.data import TensorData, shapes
from secateur.zoo import shape_detector
from secateur.zoo.detection import average_precision, detection_loss

RECIPE = {
    "constrain": [
        {"where": "*", "with": "rows", "level": {"sparsity": 0.4}},  # 40 % of the filters leave
        {"where": "*", "with": "topk"},  # the rest of the budget: single weights of what is left
    ],
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.5},
}


def precision_of(net: nn.Module, batches: TensorData) -> float:
    """Mean average precision; the net comes back in the mode it had."""
    was = net.training
    net.eval()
    with torch.no_grad():
        answers = [raw for x, _ in batches for raw in net(x)]
    net.train(was)
    return average_precision(answers, torch.cat([y for _, y in batches]))


def trained(net: nn.Module, train: TensorData, epochs: int, rate: float = 3e-3) -> torch.optim.Optimizer:
    """An ordinary network first; yours is trained already."""
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    total, step = epochs * len(train), 0
    for epoch in range(epochs):
        for x, y in train.order(torch.Generator().manual_seed(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, step / 50) * (1 - 0.95 * step / total)
            optimizer.zero_grad()
            detection_loss(net(x), y).backward()
            optimizer.step()
            step += 1
    return optimizer


def main(
    folder: Path,
    sizes: tuple[int, int, int] = (2000, 300, 600),
    epochs: tuple[int, int] = (12, 12),
    width: float = 1.0,
    macs: str = "2.5M",
    rate: float = 2e-3,
) -> Result:
    """Train, compress, save, load, and run the files; `epochs` dense and under compression, `macs` the budget."""
    torch.manual_seed(0)
    splits = shapes.load(sizes=sizes)
    train, valid, test = splits.train, splits.valid, splits.test
    net = shape_detector(width)
    optimizer = trained(net, train, epochs[0])
    print(f"dense: mAP {precision_of(net, test):.3f} on the test pictures")

    total = epochs[1] * len(train)
    compressor = Compressor(
        net,
        RECIPE | {"budget": {"macs": macs}},
        torch.zeros(2, 3, shapes.SIDE, shapes.SIDE),
        optimizer=optimizer,
        total_steps=total,
        evaluate=lambda m: precision_of(m, valid),
    )
    step = 0
    for epoch in range(epochs[1]):
        for x, y in train.order(torch.Generator().manual_seed(100 + epoch)):
            for group in optimizer.param_groups:
                group["lr"] = rate * max(0.02, 1 - step / total)
            optimizer.zero_grad()
            (detection_loss(net(x), y) + compressor.penalty()).backward()
            optimizer.step()
            compressor.step()
            step += 1
    result = compressor.finalize()
    result.save(folder)

    small = load(folder, shape_detector(width))  # from safetensors and the recorded surgery; no pickle
    print(f"compressed: mAP {precision_of(small, test):.3f}, {(folder / 'model.sct').stat().st_size:,} bytes")
    session = InferenceSession(folder / "model.sct")
    name = session.get_inputs()[0].name
    answers = [raw for x, _ in test for raw in torch.from_numpy(session.run(None, {name: x.numpy()})[0])]
    print(f"in the engine: mAP {average_precision(answers, torch.cat([y for _, y in test])):.3f}")
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as temporary:
            main(Path(temporary))
