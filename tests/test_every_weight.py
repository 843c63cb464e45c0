"""Sets on recurrent, transposed, looked-up and packed weights, from the recipe to the written file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import secateur
from secateur import catalog
from secateur.contracts import Term
from secateur.export import membership, stored
from secateur.export.membership import Asked
from secateur.export.onnx import to_bytes, with_weights
from secateur.graph import trace
from secateur.graph.unwrapping import plain
from secateur.proof import agreement

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.HandedOverWarning")  # recurrent layers
FAST = {"bench": {"seconds": 0.01, "against": []}, "baselines": [], "solver": {"name": "one_shot", "epochs": 2}}
FAST |= {"training": {"threads": 1}}


class Words(nn.Module):
    """Every kind in one: look-up, LSTM, attention, a parameter of the code, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(12, 8), nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.w, self.up = nn.Parameter(torch.randn(8, 6) / 3), nn.ConvTranspose1d(6, 4, 2, 2, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(self.words(x))[0]
        y = torch.relu(self.attention(y, y, y, need_weights=False)[0] @ self.w)
        return self.head(self.up(y.transpose(1, 2)).mean(2))


def data() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 12, (48, 5), generator=g)
    return [(part, part[:, 0] % 3) for part in x.split(16)]


WEIGHTS = {
    "words.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "attention.in_proj_weight", "attention.out_proj.weight",
    "w", "up.weight", "head.weight",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sets", "budget"),
    [
        (["topk", {"name": "codebook", "max_entries": 8}], {"nbytes": "1900B"}),
        (["topk", {"name": "uniform", "per": "row", "min_bits": 4, "max_bits": 4}], {"nnz": 400}),
    ],
)
def test_all_weights_are_held_and_written(sets: Any, budget: dict[str, Any]) -> None:
    torch.manual_seed(0)
    result = secateur.compress(
        Words(), data(), valid=data(), budget=budget, recipe={**FAST, "constrain": [{"with": sets}]}, on_progress=False
    )
    assert {t["site"] for t in result.report["terms"]} == WEIGHTS
    assert result.report["left_out"] == []
    written = stored.initializers(result.files.onnx)
    for name, p in result.model.named_parameters():
        np.testing.assert_array_equal(written[name], p.detach().numpy(), err_msg=name)
    kept = {name: int(np.count_nonzero(written[name])) for name in WEIGHTS}
    reached = {"nnz": sum(kept.values()), "nbytes": len(result.files.sct)}
    for name, value in reached.items():
        assert result.report["compressed"][name] == value
    ((name, asked),) = budget.items()
    limit = int(str(asked).removesuffix("B"))
    (row,) = result.report["budget"]
    assert reached[name] <= limit
    assert reached[name] >= (0.92 if "unspent" in row else 0.95) * limit  # spent, or said why not
    asked_of = {t["site"]: t["level"][0] for t in result.report["terms"] if t["level"] and t["level"][0] is not None}
    assert "lstm.weight_hh_l0" in asked_of
    assert all(kept[name] <= at for name, at in asked_of.items())
    if "nbytes" in budget:
        entries = {t["site"]: t["level"][1] for t in result.report["terms"] if t["level"] and t["level"][1]}
        assert {"lstm.weight_ih_l0", "attention.in_proj_weight"} <= entries.keys()
        assert all(len(np.unique(written[n][written[n] != 0])) <= at <= 8 for n, at in entries.items())
    assert result.report["verify"]["agree"]
    rows = {r["name"]: r for r in result.report["layers"]}
    assert all(rows[n]["nbytes"] > 0 for n in WEIGHTS)  # also of those that are stored turned
    assert rows["words.weight"]["macs"] == 0
    assert rows["lstm.weight_hh_l0"]["macs"] == 5 * kept["lstm.weight_hh_l0"]


def test_rows_of_gates_are_zero_in_place_and_columns_of_words_are_removed() -> None:
    torch.manual_seed(0)
    net = Words()
    recipe = {**FAST, "constrain": [{"where": ["lstm.weight_ih_l0", "words"], "with": "rows", "level": {"rows": 7}}]}
    result = secateur.compress(net, data(), valid=data(), budget={"nnz": 900}, recipe=recipe, on_progress=False)
    gates, words = (result.model.get_parameter(k) for k in ("lstm.weight_ih_l0", "words.weight"))
    assert (gates != 0).any(1).sum() == 7
    assert gates.shape == (32, 7)  # what reads a removed column of the words goes with it
    assert words.shape == (12, 7)


@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_a_file_in_which_one_recurrent_weight_left_its_set_is_refused(layer: str) -> None:
    torch.manual_seed(0)
    made = {"lstm": nn.LSTM, "gru": nn.GRU}[layer](3, 4, batch_first=True, bidirectional=True)
    net = nn.Sequential(made)
    x = torch.randn(2, 5, 3)
    sites = {s.name: s for s in trace(net, x).sites}
    topk, name = catalog.load("constraints", "topk")(), "0.weight_hh_l0_reverse"
    w = net.get_parameter(name)
    with torch.no_grad():
        w.copy_(topk.project(w, 9))
    asked = Asked((Term(sites[name], topk, 9, True),), {})
    data = to_bytes(net, x)
    assert membership.outside(asked, data, []) == []
    changed = w.detach().clone()
    changed.view(-1)[int((changed.view(-1) == 0).nonzero()[0])] = 0.5
    (line,) = membership.outside(asked, with_weights(data, {name: changed}), [])
    assert line.startswith(f"{name}: topk at level 9")


def test_weights_computed_for_a_recurrent_layer_are_baked_where_its_forward_reads_them() -> None:
    class Halved(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 0.5 * w

    torch.manual_seed(0)
    net = nn.Sequential(nn.GRU(3, 4, batch_first=True))
    parametrize.register_parametrization(net[0], "weight_ih_l0", Halved())
    parametrizations.weight_norm(net[0], "weight_hh_l0")
    x = torch.randn(2, 5, 3)
    want = net.eval()(x)[0]
    bare, _ = plain(net)
    assert torch.equal(bare.eval()(x)[0], want)
    assert {s.name for s in trace(bare, x).sites} == {n for n, _ in bare.named_parameters()}
    with torch.no_grad():
        bare[0].weight_hh_l0.zero_()
    assert not torch.equal(bare(x)[0], want)
    tensors = [numpy for numpy in stored.initializers(to_bytes(bare, x)).values() if numpy.shape == (12, 4)]
    assert len(tensors) == 1
    assert not tensors[0].any()


def test_module_file_and_engine_compute_the_same_after_weights_changed_in_place() -> None:
    torch.manual_seed(0)
    net = Words().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_((torch.rand_like(p) < 0.3).float())
    x = data()[0][0]
    onnx = to_bytes(net, x)
    found = agreement.outputs_agree(secateur.formats.pack(onnx), onnx, net, {"x": x.numpy()})
    assert found["agree"], found["errors"]
