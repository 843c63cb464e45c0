"""The files that a machine's table is timed on: the dense net as a run would write it, in integers and narrower."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from secateur import graph
from secateur.export import norms, written
from secateur.graph import activations
from secateur.graph.copying import copied
from secateur.terms import views
from secateur.training.batches import tensors

if TYPE_CHECKING:
    from secateur.engine.tabulate import Form
    from secateur.graph import Example, Traced

_STEP = 1 / 16  # of every grid of activations: integers take the same time whatever they stand for
_TOP = 127


def form(dense: nn.Module, traced: Traced, example: Example, integers: Collection[str]) -> Form:
    """What `tabulate.table` asks: bits and width -> the file of the net.

    Args:
        integers: weights of the layers whose activations are quantized where bits are 8.
    """

    def file(bits: int, width: float) -> bytes:
        net = copied(dense).eval() if width == 1.0 else narrowed(dense, traced, width)
        data = in_integers(net, example, integers) if bits == 8 else written.exported_bytes(net, example)
        return norms.merged(data, set())

    return file


def narrowed(dense: nn.Module, traced: Traced, width: float) -> nn.Module:
    """The net with that share of every group of coupled channels, those of the largest weights; one at least."""
    weights: dict[str, Tensor] = {k: p.detach() for k, p in dense.named_parameters()}
    for group in traced.groups:
        matrix = views.matrix(group, "channels", weights)
        gone = matrix.square().sum(1).argsort()[: len(matrix) - max(round(width * len(matrix)), 1)]
        weights |= views.write(group, "channels", weights, matrix.index_fill(0, gone, 0))
    for name, kept in traced.kept(weights).items():
        weights[name] = weights[name].masked_fill(~kept, 0)
    return graph.shrink(dense, traced, weights, proof="of doubts")[0].eval()


def in_integers(net: nn.Module, example: Example, integers: Collection[str]) -> bytes:
    """The file of `net` with the weights of these layers as codes of 8 bits, one scale a row, and grids around them.

    Raises:
        UnsupportedError: as `activations.calls` and `activations.find`.
    """
    made = activations.calls(net)
    grids = activations.find(made.module, tensors(example.inputs), tuple(integers))
    scales: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in integers:
            weight = made.module.get_parameter(name)
            most = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True)
            scales[name] = torch.where(most > 0, most / _TOP, 1)
            weight.copy_((weight / scales[name]).round() * scales[name])
        module, _ = activations.rewrite(made, grids)
        for grid in grids:
            module.get_buffer(grid.scale).fill_(_STEP)
    activations.round_biases(module, scales)
    return written.exported_bytes(module, example, scales)
