"""From parameters to the matrix a constraint sees, and back.

Views of a conv weight [o, c, kh, kw] (linear weights [o, c] are the case kh = kw = 1; 1-D parameters are one row):
    oc        rows o, columns (c, kh, kw)
    o_khkw_c  rows o, columns (kh, kw, c): groups along the input channels
    channels  one row per coupled channel: every member's slice of that channel, side by side
`matrix` copies only when it must; `write` returns new tensors and never changes its input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from secateur.types import Member, Site, Weights

if TYPE_CHECKING:
    from torch import Tensor


def shape(site: Site, view: str, params: Weights) -> tuple[int, int]:
    """Rows and columns of the matrix that `matrix` would give."""
    if site.op == "channels":
        rows = site.shape[0]
        return rows, sum(_width(params[m.param], m, rows) for m in site.members)
    if len(site.shape) < 2:
        return 1, site.n
    return site.shape[0], math.prod(site.shape[1:])


def matrix(site: Site, view: str, params: Weights) -> Tensor:
    """The [rows, cols] matrix of a site; shares memory with the parameter where a plain reshape does it."""
    if site.op == "channels":
        parts = [_by_row(params[m.param], m, site.shape[0]) for m in site.members]
        if len(parts) == 1:
            return parts[0]
        import torch  # lazily: the bottom modules import without torch

        return torch.hstack(parts)
    w = params[site.members[0].param]
    if w.dim() < 2:
        return w.reshape(1, -1)
    if view == "o_khkw_c" and w.dim() > 2:
        w = w.movedim(1, -1)
    return w.reshape(w.shape[0], -1)


def write(site: Site, view: str, params: Weights, values: Tensor) -> dict[str, Tensor]:
    """The members' new tensors when the site's matrix becomes `values` (any dtype; cast back)."""
    if site.op == "channels":
        out, at = {}, 0
        for m in site.members:
            w = params[m.param]
            width = _width(w, m, site.shape[0])
            out[m.param] = _from_row(values[:, at : at + width], m, w)
            at += width
        return out
    w = params[site.members[0].param]
    if view == "o_khkw_c" and w.dim() > 2:
        back = values.reshape(w.shape[0], *w.shape[2:], w.shape[1]).movedim(-1, 1)
    else:
        back = values.reshape(w.shape)
    return {site.members[0].param: back.to(w.dtype).contiguous()}


def _width(w: Tensor, m: Member, rows: int) -> int:
    used = w.shape[m.axis] if m.index is None else len(m.index)
    return w.numel() // w.shape[m.axis] * used // rows


def _by_row(w: Tensor, m: Member, rows: int) -> Tensor:
    moved = w.movedim(m.axis, 0)
    return (moved if m.index is None else moved[list(m.index)]).reshape(rows, -1)


def _from_row(part: Tensor, m: Member, like: Tensor) -> Tensor:
    moved = like.movedim(m.axis, 0)
    if m.index is None:
        full = part.reshape(moved.shape).to(like.dtype)
    else:
        full = moved.clone()
        full[list(m.index)] = part.reshape(len(m.index), *moved.shape[1:]).to(like.dtype)
    return full.movedim(0, m.axis).contiguous()
