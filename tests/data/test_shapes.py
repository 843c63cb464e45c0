"""Drawn pictures with boxes: the same at every call, boxes where the shapes are."""

from __future__ import annotations

import numpy as np
import torch

from secateur import data
from secateur.data import shapes


def test_the_same_pictures_at_every_call() -> None:
    one, two = shapes.load(sizes=(6, 3, 3)), shapes.load(sizes=(4, 3, 3))
    assert torch.equal(one.train.inputs[:4], two.train.inputs)
    assert torch.equal(one.train.targets[:4], two.train.targets)
    assert one.train.inputs.shape == (6, *data.spec("shapes").shape)
    assert not torch.equal(one.valid.inputs, one.test.inputs)


def test_boxes_are_inside_and_apart() -> None:
    targets = shapes.load(sizes=(60, 1, 1)).train.targets.numpy()
    there = targets[..., 0] >= 0
    assert there.any(1).all()
    assert set(np.unique(targets[there][:, 0])) == {0, 1, 2}
    assert (targets[there][:, 1:] >= 0).all()
    assert (targets[there][:, 1:] <= shapes.SIDE).all()
    assert (targets[there][:, 3:] - targets[there][:, 1:3] > 8).all()
    for boxes, real in zip(targets[..., 1:], there, strict=True):
        for i in range(1, int(real.sum())):
            assert shapes.overlap(boxes[i].astype(float), boxes[:i]).max() <= 0.1 + 1e-6
    assert (targets[~there] == -1).all()


def test_overlap_by_hand() -> None:
    found = shapes.overlap(np.array([0.0, 0, 2, 2]), np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]]))
    assert found.tolist() == [1 / 3, 1.0, 0.0]


def test_a_shape_fills_its_box() -> None:
    """The pixels of a shape stand out from the ground, out to the sides of its box and no further."""
    box = np.array([10.0, 20.0, 30.0, 50.0])
    for kind in (1, 2):
        rows, cols = np.nonzero(shapes._inside(kind, box))
        assert (cols.min(), cols.max() + 1, rows.max() + 1) == (10, 30, 50)
        assert rows.min() == (20 if kind == 1 else 22)  # the tip of a triangle lies between the middles of pixels
    rows, cols = np.nonzero(shapes._inside(0, np.array([10.0, 20.0, 30.0, 40.0])))
    assert (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) == (20, 40, 10, 30)
