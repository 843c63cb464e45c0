"""From parameters to the matrix a constraint sees, and back.

Views of a conv weight [o, c, kh, kw] (linear weights [o, c] are the case kh = kw = 1; 1-D parameters are one row):
    oc        rows o, columns (c, kh, kw)
    o_khkw_c  rows o, columns (kh, kw, c): groups along the input channels
    channels  one row per coupled channel: every member's slice of that channel, side by side; `oc` for single weights
    readers   the same of a site whose members are the layers that read the channel; `o_khkw_c` for single weights
A parameter that keeps its outputs elsewhere (`Site.rows`: a transposed convolution [c, o, kh, kw], `x @ w` with w
[c, o]) is brought into that order first. Recurrent weights stack their gates along the outputs: rows (gate, unit).
`matrix` copies only when it must; `write` returns new tensors and never changes its input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from secateur.types import Member, Site, Weights

if TYPE_CHECKING:
    from torch import Tensor


_TAPS_FIRST = ("o_khkw_c", "readers")


def shape(site: Site, view: str, params: Weights) -> tuple[int, int]:
    """Rows and columns of the matrix that `matrix` would give."""
    if site.op == "channels":
        rows = site.shape[0]
        return rows, sum(_width(params[m.param], m, rows) for m in site.members)
    if len(site.shape) < 2:
        return 1, site.n
    rows = math.prod(site.shape[a] for a in site.rows) * (site.groups if site.rows != (0,) else 1)
    return rows, site.n // max(rows, 1)


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
    w = _outputs_first(site, w)
    if view in _TAPS_FIRST and w.dim() > 2:
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
    if w.dim() < 2:
        return {site.members[0].param: values.reshape(w.shape).to(w.dtype)}
    first = _outputs_first(site, w).shape
    if view in _TAPS_FIRST and len(first) > 2:
        back = values.reshape(first[0], *first[2:], first[1]).movedim(-1, 1)
    else:
        back = values.reshape(first)
    return {site.members[0].param: _outputs_back(site, back, w.shape).to(w.dtype).contiguous()}


def spread(site: Site, per_row: Tensor, w: Tensor) -> Tensor | None:
    """One number per row of the matrix of `w`, shaped to multiply `w` itself; None when rows lie on several axes."""
    if len(site.rows) > 1 or (site.groups > 1 and site.rows != (0,)):
        return None
    shape = [1] * w.dim()
    for axis in site.rows:  # none: all axes are summed over, one row
        shape[axis] = -1
    return per_row.reshape(shape)


def _outputs_first(site: Site, w: Tensor) -> Tensor:
    """The parameter with its outputs along axis 0; a view where no copy is needed."""
    if site.rows == (0,):
        return w
    if site.groups > 1:  # axis 0 runs over (group, input), axis 1 over the group's outputs
        inputs, outputs = w.shape[0] // site.groups, w.shape[1]
        apart = w.reshape(site.groups, inputs, outputs, *w.shape[2:]).transpose(1, 2)
        return apart.reshape(site.groups * outputs, inputs, *w.shape[2:])
    order = _order(site, w.dim())
    moved = w.permute(order)
    return moved.reshape(-1, *moved.shape[len(site.rows) :])


def _outputs_back(site: Site, first: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`_outputs_first` undone for a parameter of `shape`."""
    if site.rows == (0,):
        return first
    if site.groups > 1:
        apart = first.reshape(site.groups, shape[1], shape[0] // site.groups, *shape[2:])
        return apart.transpose(1, 2).reshape(shape)
    order = _order(site, len(shape))
    moved = first.reshape([shape[a] for a in order])
    return moved.permute([order.index(a) for a in range(len(shape))])


def _order(site: Site, n_axes: int) -> list[int]:
    return [*site.rows, *(a for a in range(n_axes) if a not in site.rows)]


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
