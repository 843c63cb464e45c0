"""Top-k: hand-checked numbers; the laws are in test_conformance."""

import pytest
import torch

from secateur.constraints.topk import TopK
from secateur.errors import ConstraintError
from secateur.testing import brute_force


def rule(constraint, masks, level):
    return masks.sum(axis=(1, 2)) <= level


LAWS = [(TopK(), brute_force.Supports(rule))]


def test_keeps_the_largest() -> None:
    w = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 2.0, 0.0]])
    assert TopK().project(w, 3).tolist() == [[3.0, 0.0, 0.0], [-4.0, 2.0, 0.0]]


def test_importance_changes_the_choice() -> None:
    w, h = torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 4.0]])  # h w^2 = 9, 16
    assert TopK().project(w, 1, h).tolist() == [[0.0, 2.0]]
    assert TopK().distance(w, h)(1) == 9.0


def test_ties_at_half_keep_an_exact_count() -> None:
    """The percentile mistake of the card: 1,1,1,1,1,1,2,3 at 50 % must keep exactly four."""
    w = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0]])
    assert TopK().project(w, 4).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 3.0]]


def test_dead_weights_go_first() -> None:
    """Importance 0 is never kept before importance > 0, however small the weight."""
    w, h = torch.tensor([[5.0, 1e-30, 1e-30]]), torch.tensor([[0.0, 1e-12, 1e-12]], dtype=torch.float64)
    assert TopK().project(w, 2, h).tolist() == [[0.0, w[0, 1].item(), w[0, 1].item()]]


@pytest.mark.parametrize(
    ("given", "level"),
    [({"sparsity": 0.9}, 10), ({"density": 0.1}, 10), ({"nnz": 7}, 7), ({"sparsity": 1}, 0), ({"density": 1.0}, 100)],
)
def test_parse_level(given: dict[str, float], level: int) -> None:
    assert TopK().parse_level(given, (10, 10)) == level


@pytest.mark.parametrize(
    "given",
    [{}, {"bits": 3}, {"nnz": 101}, {"nnz": 2.5}, {"sparsity": 1.2}, {"sparsity": "x"}, {"nnz": 1, "density": 1}],
)
def test_parse_level_refuses(given: dict[str, object]) -> None:
    with pytest.raises(ConstraintError, match="topk"):
        TopK().parse_level(given, (10, 10))


def test_at_tightness_is_geometric() -> None:
    at = [TopK().at_tightness((100, 100), 100, t) for t in (0.0, 0.5, 1.0)]
    assert at == [None, 1000, 100]
