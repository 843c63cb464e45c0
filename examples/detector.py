"""Compress a detector in a training loop of your own: boxes, a loss of several parts, mean average precision.

    python examples/detector.py [FOLDER]

A small detector of the YOLO kind learns to find circles, rectangles and triangles in generated pictures; then filters
leave it and single weights become zero, within a share of its multiply-adds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from secateur import Compressor, InferenceSession, Result, load
from secateur.data import TensorData, shapes
from secateur.zoo.detector import cells, shape_detector

MIDDLES, STRIDES = cells(shapes.SIDE, shapes.SIDE)
RECIPE = {
    "constrain": [
        {"where": "*", "with": "rows", "level": {"sparsity": 0.4}},  # 40 % of the filters leave
        {"where": "*", "with": "topk"},  # the rest of the budget: single weights of what is left
    ],
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.5},
}


def boxes_of(raw: Tensor) -> Tensor:
    """[N, cells, 4 + classes] -> left, top, right, bottom in pixels, [N, cells, 4]."""
    reach = softplus(raw[..., :4]) * STRIDES[:, None]
    return torch.cat([MIDDLES - reach[..., :2], MIDDLES + reach[..., 2:]], -1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of boxes [..., 4], and the generalised form (Rezatofighi et al., arXiv:1902.09630)."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    return inner / union, inner / union - (outer - union) / outer


def assigned(targets: Tensor) -> Tensor:
    """For every cell the shape that it has to find, [N, cells] (-1: none): small ones on the fine scale, near by."""
    box, there = targets[:, None, :, 1:], targets[:, None, :, 0] >= 0
    middle, size = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]).amax(-1)
    near = ((MIDDLES[:, None] - middle).abs() < 0.8 * STRIDES[:, None, None]).all(-1)
    mine = there & near & ((size < 18) == (STRIDES[:, None] == STRIDES.min()))
    found, at = mine.max(-1)
    return torch.where(found, at, -1)


def detection_loss(raw: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every class in every cell, and 1 - generalised overlap of the boxes where there is a shape."""
    at = assigned(targets)
    n, cell = (at >= 0).nonzero(as_tuple=True)
    wanted = targets[n, at[n, cell]]
    classes = torch.zeros_like(raw[..., 4:])
    classes[n, cell, wanted[:, 0].long()] = 1
    scores = binary_cross_entropy_with_logits(raw[..., 4:], classes, reduction="sum")
    boxes = 1 - overlaps(boxes_of(raw)[n, cell], wanted[:, 1:])[1]
    return (scores + 2 * boxes.sum()) / max(1, len(n))


def found(raw: Tensor, least: float = 0.05) -> list[tuple[int, float, Tensor]]:
    """Of one picture the (class, score, box) that are left when the best box of a class silences those it overlaps."""
    scores, boxes, kept = raw[:, 4:].sigmoid(), boxes_of(raw), []
    for kind in range(scores.shape[1]):
        order = [i for i in scores[:, kind].argsort(descending=True).tolist()[:40] if scores[i, kind] > least]
        while order:
            best, *rest = order
            kept.append((kind, float(scores[best, kind]), boxes[best]))
            order = [i for i, o in zip(rest, overlaps(boxes[best], boxes[rest])[0].tolist(), strict=True) if o < 0.5]
    return kept


def average_precision(answers: list[Tensor], targets: Tensor, at: float = 0.5) -> float:
    """Mean over classes of the area under precision and recall, boxes right from an overlap of `at`; 0..1."""
    per_picture = [found(raw) for raw in answers]
    areas = []
    for kind in range(len(shapes.SPEC.classes)):
        truth = [t[t[:, 0] == kind, 1:] for t in targets]
        free = [[True] * len(t) for t in truth]
        hits = []
        guesses = sorted(
            ((s, i, b) for i, f in enumerate(per_picture) for k, s, b in f if k == kind), key=lambda g: -g[0]
        )
        for _, i, box in guesses:
            overlap, best = overlaps(box, truth[i])[0].max(0) if len(truth[i]) else (torch.zeros(()), 0)
            hits.append(bool(overlap >= at) and free[i][int(best)])
            if hits[-1]:
                free[i][int(best)] = False
        right = np.cumsum(hits)
        precision = right / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(float(envelope[np.array(hits, bool)].sum()) / max(1, sum(map(len, truth))))
    return float(np.mean(areas))


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
