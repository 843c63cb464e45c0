"""Every forward pass that people write works or is refused in one sentence (`odd_forwards.py`), at once and quietly."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.engine import InferenceSession
from secateur.errors import SecateurError, UnsupportedError, UsageError
from secateur.export import onnx as export
from secateur.graph import Example, settle, shrink, trace
from secateur.graph.doubled import in_double
from secateur.graph.example import with_rows
from secateur.graph.ops.elementwise import Elementwise
from secateur.graph.ops.opaque import Opaque

from .odd_forwards import CASES, REFUSED

WHOLE = {
    **dict.fromkeys(("index_add", "scatter_add", "index_put"), "first axes have 7 and 2 entries"),
    **dict.fromkeys(("graph", "one_row_without_axis", "one_picture"), "does not run on 3 of their rows"),
    "scalar_out": "output's first axis does not grow",
    "rows_meet": "depends on the other rows",
    "time_first": "depends on the other rows",
}
FREE = {"scalar_out", "rows_meet", "time_first"}  # taken whole, and yet of any size


def made(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(1)
    net, inputs = (CASES[name] if name in CASES else REFUSED[name][0])()
    return net.eval(), inputs


def answers(net: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        if isinstance(inputs, dict):
            found = net(**inputs)
        else:
            found = net(*inputs) if isinstance(inputs, tuple | list) else net(inputs)
    return [t for t in tree_leaves(found) if isinstance(t, Tensor)]


@pytest.mark.filterwarnings("ignore::secateur.errors.HandedOverWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_is_traced_cut_written_and_run(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    net, inputs = made(name)
    example = settle(net, inputs)
    assert example.batched == (name not in WHOLE), example.why
    assert WHOLE.get(name, "") in example.why
    assert (example.dynamic is None) == (example.batched or name in FREE)
    traced = trace(net, example)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    for w in weights.values():
        if w.dim() > 1:
            w[1] = 0.0  # a unit that nothing reaches
    small, _ = shrink(net, traced, weights)
    data = export.to_bytes(small, inputs, dynamic_batch=example.dynamic is None)
    session = InferenceSession(data)
    given = [t.numpy() for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    named = inputs if isinstance(inputs, dict) else {}
    feeds = {i.name: g for i, g in zip(session.get_inputs(), given, strict=True)}
    feeds |= {k: v.numpy() for k, v in named.items() if v is not None}
    for ours, torchs in zip(session.run(None, feeds), answers(small, inputs), strict=True):
        np.testing.assert_allclose(ours, torchs.numpy(), atol=2e-5, rtol=1e-3)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    net, inputs = made(name)
    with pytest.raises(SecateurError) as refusal:
        trace(net, inputs)
    said = str(refusal.value)
    assert re.search(REFUSED[name][1], said), said
    assert "\n" not in said
    assert len(said) < 400
    assert capfd.readouterr() == ("", "")


# Units of these nets die with their rows, so that rows that are all zero must be gone afterwards.
CUT = (
    "bytes bytes_float double half_inside bool_input where threshold spikes comparison_of_two scalar_in dropout asserts"
)


@pytest.mark.parametrize("name", CUT.split())
def test_casts_masks_and_spikes_do_not_hinder_a_cut(name: str) -> None:
    net, inputs = made(name)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    first = next(n for n, w in weights.items() if w.dim() > 1)
    weights[first][1:3] = 0.0
    weights[first.replace("weight", "bias")][1:3] = -1.0
    small, surgery = shrink(net, trace(net, inputs), weights)
    assert dict(small.named_parameters())[first].shape[0] == weights[first].shape[0] - 2, surgery


@pytest.mark.parametrize("name", ["spikes", "threshold", "masked_mean"])
def test_steps_are_compared_in_double_although_the_code_casts(name: str) -> None:
    """In float32 one spike that rounding tips would make the smaller net another one."""
    net, inputs = made(name)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    small, _ = shrink(net, trace(net, inputs), weights)
    for a, b in zip(answers(small, inputs), answers(net, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_an_operator_that_nobody_describes_makes_everything_before_it_effective() -> None:
    net, inputs = made("gather")
    traced = trace(net, inputs)
    kinds = {str(n.target): n.meta["kind"] for n in traced.program.calls if "kind" in n.meta}
    assert isinstance(kinds["aten.gather.default"], Opaque)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    assert all(bool(mask.all()) for mask in traced.effective(weights).values())


def test_indices_given_to_a_move_fall_back_to_the_careful_default() -> None:
    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, at: Tensor) -> Tensor:
            return self.b(self.a(x).index_select(0, at))

    traced = trace(Picks(), (torch.randn(4, 6), torch.tensor([2, 0, 1])))
    pick = next(n for n in traced.program.calls if "index_select" in str(n.target))
    assert bool(traced.flow({}).live[pick].all())
    assert isinstance(pick.meta["kind"], Opaque)


@pytest.mark.parametrize("error", [KeyError, AttributeError, AssertionError])
def test_a_fault_of_our_own_in_a_kind_is_not_taken_for_a_call_it_does_not_bear(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> Tensor:
        raise error("a fault of our own")

    monkeypatch.setattr(Elementwise, "positive", faulty)
    with pytest.raises(error, match="a fault of our own"):
        trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(2, 3))


def test_a_time_axis_in_front_is_no_batch_axis() -> None:
    rnn = nn.GRU(4, 6)
    example = settle(rnn, torch.randn(5, 3, 4))
    assert not example.batched
    assert "depends on the other rows" in example.why
    assert settle(nn.GRU(4, 6, batch_first=True), torch.randn(5, 3, 4)).few(torch.zeros(5, 3, 4), 1).shape == (1, 3, 4)


def test_a_batch_of_one_is_recognised_and_kept() -> None:
    example = settle(nn.Linear(4, 2), torch.randn(1, 4))
    assert example == Example(example.inputs, True)


@pytest.mark.parametrize("x", [torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[[3, 1], [4, 1]]])], ids=["words", "2-D"])
def test_rows_of_integers_are_told_apart_in_a_batch_of_one(x: Tensor) -> None:
    class Words(nn.Module):
        def __init__(self, centred: bool) -> None:
            super().__init__()
            self.words, self.centred = nn.Embedding(6, 3), centred  # 5 is the last word

        def forward(self, x: Tensor) -> Tensor:
            y = self.words(x).flatten(1).sum(1)
            return y - y.mean(0) if self.centred else y

    torch.manual_seed(0)
    assert settle(Words(centred=False), x).batched
    assert "depends on the other rows" in settle(Words(centred=True), x).why


def test_repeated_rows_differ_and_hold_what_their_row_has() -> None:
    floats, counted = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[[2, 7, 9]]])
    a, b = with_rows((floats, counted), (1, 3, 0))
    assert a.tolist() == [[3.0, 4.0], [2.25, 3.0], [1.0, 2.0]]
    assert b.tolist() == [[[2, 2, 7]], [[2, 2, 2]], [[2, 7, 9]]]
    assert with_rows(5, (0, 1)) == 5


class Restless(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.change = nn.Linear(4, 50), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.fc(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y + 2e-5 * torch.randn_like(y),
        lambda y: nn.functional.dropout(y, 0.05, training=True),
        lambda y: y[: 1 + int(torch.randint(1000, ()))],
        lambda y: (y > 0) ^ (torch.rand_like(y) < 0.05),
    ],
    ids=["small noise", "rare dropout", "shape", "booleans"],
)
def test_a_network_that_answers_otherwise_the_second_time_is_refused(change: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match="answers the same inputs differently"):
        settle(Restless(change), torch.randn(1000, 4))


@pytest.mark.parametrize("compiling", [False, True])
def test_what_dynamo_compiled_is_forgotten_only_where_it_was_at_work(
    compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(True))

    def fails(_: Tensor) -> Tensor:
        raise RuntimeError("no such size")

    with pytest.raises(Exception, match="no such size"), in_double():
        torch.compile(fails, backend="eager")(torch.ones(2)) if compiling else fails(torch.ones(2))
    assert resets == [True] * compiling


def test_a_free_batch_axis_is_refused_where_inputs_share_none() -> None:
    net, inputs = made("index_add")
    with pytest.raises(UsageError, match="share no batch axis, their first axes have 7 and 2 entries"):
        settle(net, inputs, dynamic=True)


def test_the_note_says_why_inputs_are_taken_whole() -> None:
    net, inputs = made("graph")
    note = settle(net, inputs).note
    assert note is not None
    assert note.startswith("inputs [7, 5], [7, 7] are taken whole as one example, because GCN")
