"""Augmentations by name, on whole batches; pure functions of (batch, generator)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from secateur.errors import UsageError
from secateur.limits import quoted

Augment = Callable[[Tensor, torch.Generator], Tensor]


def affine(x: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Rotation up to 12 degrees, scale and aspect up to 12 %, shear up to 0.15, shift up to 1/14 of the side.

    `strength` scales all of them.

    For digits: 2 px of 28. What comes in from outside has the batch's smallest value (the background, normalised or
    not). Bilinear.

    Args:
        x: float [n, c, h, w].
    """
    n = len(x)
    u = ((torch.rand(n, 6, generator=generator) * 2 - 1) * strength).to(x.device)
    angle, shear = u[:, 0] * (12 * math.pi / 180), u[:, 1] * 0.15
    sx, sy = 1 + 0.12 * u[:, 2], 1 + 0.12 * u[:, 3]
    cos, sin = angle.cos(), angle.sin()
    shift = u[:, 4:] * (2 * 2 / 28)  # in units of half the side
    # theta maps output to input coordinates: rotation times shear times scale.
    rows = [cos * sx, (cos * shear - sin) * sy, shift[:, 0], sin * sx, (sin * shear + cos) * sy, shift[:, 1]]
    theta = torch.stack(rows, 1).view(n, 2, 3).to(x.dtype)
    low = x.amin()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x - low, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + low


def flip_crop(x: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Horizontal flip with probability 1/2, then a random crop of the image padded by 1/8 of its side (4 px of 32).

    `strength` scales the padding.

    The padding reflects the image's border; He et al. pad with zeros, which after normalisation would be grey as well.

    Args:
        x: float [n, c, h, w].
    Reference: He et al. 2015, arXiv:1512.03385, sec. 4.2.
    """
    n, _, h, w = x.shape
    pad = max(round(strength * h / 8), 1)
    flip = (torch.rand(n, generator=generator) < 0.5)[:, None].to(x.device)
    top = torch.randint(0, 2 * pad + 1, (n, 1), generator=generator).to(x.device)
    left = torch.randint(0, 2 * pad + 1, (n, 1), generator=generator).to(x.device)
    ys, xs = torch.arange(h, device=x.device) + top, torch.arange(w, device=x.device)
    xs = torch.where(flip, w - 1 - xs, xs) + left
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded.movedim(1, -1)[image, ys[:, :, None], xs[:, None, :]].movedim(-1, 1)


_NAMED: dict[str, Callable[[Tensor, torch.Generator, float], Tensor]] = {"affine": affine, "flip_crop": flip_crop}


def get(name: str | None) -> Augment | None:
    """The augmentation `name` or `name:strength` (`none` or None: none); UsageError lists the known ones."""
    if name is None or name == "none":
        return None
    kind, _, strength = name.partition(":")
    if kind not in _NAMED:
        raise UsageError(f"training.augment: {quoted(name)} is unknown; known: none, {', '.join(sorted(_NAMED))}")
    try:
        scale = float(strength or 1.0)
    except ValueError:
        raise UsageError(f"training.augment: {quoted(name)}; give a number after the colon, as {kind}:0.8") from None
    return lambda x, generator: _NAMED[kind](x, generator, scale)
