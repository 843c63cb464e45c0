"""Pictures of circles, rectangles and triangles with their boxes, drawn from a seed: detection without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.spec import Spec, Splits
from secateur.data.tensors import TensorData

SIDE, MOST = 64, 4  # pixels of a side, shapes in a picture
SPEC = Spec(
    name="shapes",
    shape=(3, SIDE, SIDE),
    classes=("circle", "rectangle", "triangle"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    full_scale=255.0,
    note="targets float32 [N, 4, 5]: class, left, top, right, bottom in pixels; class -1 where there is no shape",
)
_SMALLEST, _LARGEST = 9, 30  # sides of boxes
_ROWS, _COLS = np.mgrid[0:SIDE, 0:SIDE] + 0.5


def load(
    data_dir: str | Path | None = None,
    *,
    batch_size: int = 32,
    download: bool = False,
    sizes: tuple[int, int, int] = (2000, 300, 600),
) -> Splits:
    """Training, validation and test pictures, each part from a seed of its own: the same at every call.

    One to four filled shapes of any colour on a shaded, noisy ground; boxes that overlap by less than a tenth.
    Inputs float32 [N, 3, 64, 64], targets as `SPEC.note` says. `data_dir` and `download` are accepted as by the other
    loaders and not used.

    Args:
        sizes: pictures of each part. A smaller part is the beginning of a larger one.
    """
    train, valid, test = (_part(seed, n, batch_size) for seed, n in enumerate(sizes))
    return Splits(train, valid, test, SPEC)


def _part(seed: int, n: int, batch_size: int) -> TensorData:
    pictures, boxes = zip(*(_picture(np.random.default_rng((2026, seed, i))) for i in range(n)), strict=True)
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(torch.float32) / SPEC.full_scale
    x = (x - SPEC.mean[0]) / SPEC.std[0]
    return TensorData(x.contiguous(), torch.from_numpy(np.stack(boxes)), batch_size)


def _picture(g: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """uint8 [side, side, 3] and float32 [4, 5]."""
    slope = g.uniform(-0.6, 0.6, 2)
    shade = slope[0] * (_ROWS - SIDE / 2) + slope[1] * (_COLS - SIDE / 2)
    canvas = g.uniform(60, 190, 3) + shade[..., None]
    boxes = np.full((MOST, 5), -1, np.float32)
    placed = 0
    for _ in range(int(g.integers(1, MOST + 1))):
        w, h = g.uniform(_SMALLEST, _LARGEST, 2)
        kind = int(g.integers(len(SPEC.classes)))
        if kind == 0:
            h = w
        left, top = g.uniform(0, SIDE - w), g.uniform(0, SIDE - h)
        box = np.array([left, top, left + w, top + h])
        if placed and overlap(box, boxes[:placed, 1:]).max() > 0.1:
            continue
        inside = _inside(kind, box)
        colour = canvas[inside].mean(0) + g.choice([-1, 1], 3) * g.uniform(40, 110, 3)
        canvas[inside] = colour
        boxes[placed] = (kind, *box)
        placed += 1
    noisy = canvas + g.normal(0, 10, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), boxes


def _inside(kind: int, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The pixels whose middle lies in the shape that fills a box."""
    left, top, right, bottom = box
    x, y = (_COLS - left) / (right - left), (_ROWS - top) / (bottom - top)  # 0..1 in the box
    within = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    if kind == 0:
        return np.asarray((x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25)
    return np.asarray(within if kind == 1 else within & (np.abs(x - 0.5) <= y / 2))


def overlap(one: NDArray[np.floating], many: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of a box [4] with others [n, 4], each left, top, right, bottom."""
    width = np.minimum(one[2], many[:, 2]) - np.maximum(one[0], many[:, 0])
    height = np.minimum(one[3], many[:, 3]) - np.maximum(one[1], many[:, 1])
    both = width.clip(0) * height.clip(0)
    areas = (many[:, 2] - many[:, 0]) * (many[:, 3] - many[:, 1])
    return np.asarray(both / ((one[2] - one[0]) * (one[3] - one[1]) + areas - both))
