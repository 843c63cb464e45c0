"""What a set promises of its members' size beside what the file takes, on weights of layers as they are stored."""

import pytest
import torch

from secateur.contracts import Constraint
from secateur.formats import measure
from secateur.terms import views
from secateur.types import Member, Site

DENSE, CONV, GROUPED = (128, 256), (32, 32, 3, 3), (32, 16, 3, 3)
ZEROS = (0.5, 0.8, 0.9)


def site(shape: tuple[int, ...], groups: int = 1) -> Site:
    return Site("w", "conv" if len(shape) > 2 else "linear", shape, (Member("w"),), groups=groups)


def projected(
    constraint: Constraint, shape: tuple[int, ...], sparsity: float, groups: int = 1
) -> tuple[torch.Tensor, float, int]:
    """Normal weights of that shape in the set, the bytes expected and the most bytes promised."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    place = site(shape, groups)
    own = constraint.on(place)
    matrix = views.matrix(place, own.view, {"w": w})
    level = own.parse_level({"sparsity": sparsity}, tuple(matrix.shape))
    promise = own.packing(tuple(matrix.shape), level)
    return (
        views.write(place, own.view, {"w": w}, own.project(matrix, level))["w"],
        promise.estimate,
        promise.max_nbytes,
    )


def check_estimate(
    constraint: Constraint, shape: tuple[int, ...], groups: int = 1, sparsities: tuple[float, ...] = ZEROS
) -> None:
    """The estimate is near the written tensor, and that no more than promised."""
    for sparsity in sparsities:
        z, estimate, most = projected(constraint, shape, sparsity, groups)
        assert 0 < int(z.count_nonzero()) <= (1 - sparsity) * z.numel() + 1e-6
        found = measure(z.numpy())
        assert estimate == pytest.approx(found.nbytes, rel=0.1), (constraint, shape, sparsity, found.layout)
        assert found.nbytes <= most
