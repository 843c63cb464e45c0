"""The written weights are in the sets that were asked for, also where one set spans several coupled layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import secateur
from secateur import catalog, graph
from secateur.constraints.all_of import AllOf
from secateur.contracts import Term
from secateur.export import membership, stored
from secateur.export.membership import Asked
from secateur.types import Member, Site

TOPK, ROWS = catalog.load("constraints", "topk")(), catalog.load("constraints", "rows")()
CODEBOOK, UNIFORM = catalog.load("constraints", "codebook")(), catalog.load("constraints", "uniform")()


class Residual(nn.Module):
    """Two producers whose channels meet in a sum: one `channels` site over both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.a(x) + self.b(x)))


def data(n: int = 4) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 8, generator=g), torch.randint(0, 3, (16,), generator=g)) for _ in range(n)]


@pytest.mark.parametrize(
    ("values", "n_values"),
    [
        ({"name": "codebook", "min_entries": 4, "max_entries": 4}, 4),
        ({"name": "uniform", "min_bits": 3, "max_bits": 3}, 8),
    ],
)
def test_a_joint_set_over_coupled_layers_holds_in_all_of_them(values: dict[str, Any], n_values: int) -> None:
    torch.manual_seed(0)
    recipe = {
        "constrain": [{"where": "a.weight.channels", "with": ["rows", values]}],
        "solver": {"name": "one_shot", "epochs": 2},
        "baselines": [],
        "training": {"threads": 1},
        "bench": {"seconds": 0.01, "against": []},
    }
    result = secateur.compress(Residual(), data(), valid=data(), budget={"nnz": 110}, recipe=recipe)
    kept = stored.initializers(result.files.onnx)
    both = np.concatenate([kept["a.weight"].ravel(), kept["b.weight"].ravel()])
    assert kept["a.weight"].shape[0] < 12
    assert len(np.unique(both[both != 0])) <= n_values
    (term,) = result.report["terms"]
    assert [m["param"] for m in term["place"]["members"]] == ["a.weight", "b.weight"]
    assert [part["name"] for part in term["with"]] == ["rows", values["name"]]
    assert term["level"][1] == (4 if values["name"] == "codebook" else 3)
    rows = {row["name"]: row for row in result.report["layers"]}
    assert rows["b.weight"]["constraint"] == rows["a.weight"]["constraint"] == f"rows + {values['name']}"


def file(**weights: Any) -> bytes:
    model = onnx.ModelProto()
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name.replace("__", ".")))
    return model.SerializeToString()


A = Site("a.weight", "linear", (2, 3), (Member("a.weight"),))
PAIR = Site("a.weight.channels", "channels", (3,), (Member("a.weight"), Member("b.weight", index=(2, 0, 1))))


@pytest.mark.parametrize(
    ("constraint", "level", "good", "bad"),
    [
        (TOPK, 2, [[1, 0, 0], [0, 2, 0]], [[1, 0, 3], [0, 2, 0]]),
        (CODEBOOK, 2, [[1, 2, 2], [1, 1, 2]], [[1, 2, 2], [1, 3, 2]]),
        (UNIFORM, 2, [[0.5, 0, 0.5], [0, 0.5, -0.5]], [[0.5, 0, 0.7], [0, 0.5, -0.5]]),
        (AllOf((TOPK, CODEBOOK)), (3, 1), [[1, 0, 1], [0, 1, 0]], [[1, 0, 1], [0, 2, 0]]),
        (AllOf((TOPK, CODEBOOK)), (2, 2), [[1, 0, 2], [0, 0, 0]], [[1, 0, 1], [0, 2, 0]]),
    ],
)
def test_members_are_counted_in_the_file(constraint: Any, level: Any, good: Any, bad: Any) -> None:
    asked = Asked((Term(A, constraint),), {"a.weight": level})
    assert membership.outside(asked, file(a__weight=good), []) == []
    (line,) = membership.outside(asked, file(a__weight=bad), [])
    assert line.startswith("a.weight: ")


def test_every_weight_of_a_coupled_site_is_asked_also_after_a_cut() -> None:
    """Row 1 of the site is row 1 of a and row 0 of b; it was removed."""
    cut = {"edits": [{"tensor": "a.weight", "axis": 0, "size": 3, "keep": [0, 2]}]}
    cut["edits"].append({"tensor": "b.weight", "axis": 0, "size": 3, "keep": [1, 2]})
    asked = Asked((Term(PAIR, AllOf((ROWS, CODEBOOK)), (2, 2), True),), {})
    shared = file(a__weight=[[1, 2], [2, 2]], b__weight=[[1, 1], [2, 1]])
    assert membership.outside(asked, shared, [cut]) == []
    (line,) = membership.outside(asked, file(a__weight=[[1, 2], [2, 2]], b__weight=[[1, 1], [3, 1]]), [cut])
    assert "codebook at level 2 over a.weight, b.weight" in line
    narrower = Asked(asked.terms, {PAIR.name: (1, 2)})
    assert "rows at level 1" in membership.outside(narrower, shared, [cut])[0]
    mapped = graph.after_cut(PAIR, cut)
    assert mapped is not None
    assert [m.index for m in mapped.members] == [None, (1, 0)]
    assert mapped.shape == (2,)


def test_codes_and_transposed_weights_are_read_as_the_graph_uses_them() -> None:
    model = onnx.load_model_from_string(file(**{"b__weight.T": [[1, 2, 3]]}))
    model.graph.initializer.append(numpy_helper.from_array(np.array([[1, -2], [3, 0]], np.int8), "a.weight"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.5, 2], np.float32), "s"))
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["a.weight", "s"], ["w"], axis=0))
    found = stored.initializers(model.SerializeToString())
    assert np.array_equal(found["a.weight"], [[0.5, -1], [6, 0]])
    assert found["b.weight"].shape == (3, 1)
