"""What a detector of the YOLO kind learns by and is judged by: its loss, its boxes, mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from secateur.data import shapes
from secateur.zoo.detector import cells

_SMALL = 18  # pixels of the longer side: below it a shape belongs to the fine scale
_NEAR = 0.8  # strides from a cell's middle to that of a shape that it has to find
_BOX_WEIGHT = 2.0
_LEAST, _MOST = 0.05, 40  # the score from which a box counts, and how many of a class and picture are looked at


@cache
def _places() -> tuple[Tensor, Tensor]:
    return cells(shapes.SIDE, shapes.SIDE)


def boxes_of(raw: Tensor) -> Tensor:
    """What the detector answers, [N, cells, 4 + classes] -> left, top, right, bottom in pixels, [N, cells, 4]."""
    middles, strides = _places()
    reach = softplus(raw[..., :4]) * strides[:, None]
    return torch.cat([middles - reach[..., :2], middles + reach[..., 2:]], -1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of boxes [..., 4], and the generalised form (Rezatofighi et al., arXiv:1902.09630)."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    return inner / union, inner / union - (outer - union) / outer


def assigned(targets: Tensor) -> Tensor:
    """For every cell the shape that it has to find, [N, cells] (-1: none): small ones on the fine scale, near by."""
    middles, strides = _places()
    box, there = targets[:, None, :, 1:], targets[:, None, :, 0] >= 0
    middle, size = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]).amax(-1)
    near = ((middles[:, None] - middle).abs() < _NEAR * strides[:, None, None]).all(-1)
    mine = there & near & ((size < _SMALL) == (strides[:, None] == strides.min()))
    found, at = mine.max(-1)
    return torch.where(found, at, -1)


def detection_loss(raw: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every class in every cell, and 1 - generalised overlap of the boxes where there is a shape.

    Args:
        raw: of the detector, float32 [N, cells, 4 + classes].
        targets: as `data.shapes` gives them, float32 [N, 4, 5].
    """
    at = assigned(targets)
    n, cell = (at >= 0).nonzero(as_tuple=True)
    wanted = targets[n, at[n, cell]]
    classes = torch.zeros_like(raw[..., 4:])
    classes[n, cell, wanted[:, 0].long()] = 1
    scores = binary_cross_entropy_with_logits(raw[..., 4:], classes, reduction="sum")
    boxes = 1 - overlaps(boxes_of(raw)[n, cell], wanted[:, 1:])[1]
    return (scores + _BOX_WEIGHT * boxes.sum()) / max(1, len(n))


def found(raw: Tensor, least: float = _LEAST) -> list[tuple[int, float, Tensor]]:
    """Of one picture the (class, score, box) that are left when the best box of a class silences those it overlaps."""
    scores, boxes, kept = raw[:, 4:].sigmoid(), boxes_of(raw), []
    for kind in range(scores.shape[1]):
        best = scores[:, kind].argsort(descending=True)[:_MOST]
        order = best[scores[best, kind] > least]
        while len(order):
            first, order = order[0], order[1:]
            kept.append((kind, float(scores[first, kind]), boxes[first]))
            order = order[overlaps(boxes[first], boxes[order])[0] < 0.5]
    return kept


def average_precision(answers: Sequence[Tensor], targets: Tensor, at: float = 0.5) -> float:
    """Mean over classes of the area under precision and recall, 0..1 (Everingham et al., IJCV 2010, all points).

    Args:
        answers: of each picture, float32 [cells, 4 + classes].
        targets: float32 [pictures, 4, 5].
        at: the overlap from which a box is right; a shape is found once.
    """
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
