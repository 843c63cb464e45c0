"""TensorData and the checks of what a user's loader returns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from secateur import data
from secateur.data import Splits, TensorData, as_splits
from secateur.errors import UsageError


def _data(n: int = 10, batch: int = 4) -> TensorData:
    return TensorData(torch.arange(float(n))[:, None], torch.arange(n), batch)


def _order(d: TensorData) -> list[int]:
    return [y for _, ys in d for y in ys.tolist()]


def test_iterates_again_and_keeps_the_short_last_batch() -> None:
    d = _data()
    assert len(d) == 3
    assert [len(y) for _, y in d] == [4, 4, 2]
    assert _order(d) == _order(d) == list(range(10))


def test_order_is_a_permutation_that_the_seed_decides() -> None:
    d = _data()
    a = d.order(torch.Generator().manual_seed(1))
    b = d.order(torch.Generator().manual_seed(1))
    c = d.order(torch.Generator().manual_seed(2))
    assert _order(a) == _order(a) == _order(b) != _order(c)
    assert sorted(_order(a)) == list(range(10))
    assert all(torch.equal(x[:, 0].long(), y) for x, y in a)
    assert _order(d) == list(range(10))  # the original is not reordered
    assert a.inputs is d.inputs  # and nothing is copied
    twice = a.order(torch.Generator().manual_seed(3))
    assert sorted(_order(twice)) == list(range(10))


def test_batch_by_number_is_what_iteration_gives() -> None:
    d = _data().order(torch.Generator().manual_seed(5))
    for i, (x, y) in enumerate(d):
        assert torch.equal(d.batch(i)[0], x)
        assert torch.equal(d.batch(i)[1], y)
    with pytest.raises(IndexError):
        d.batch(3)


def test_head_and_batched_are_views() -> None:
    d = _data().order(torch.Generator().manual_seed(5))
    assert _order(d.head(3)) == _order(d)[:3]
    assert _order(d.head(99)) == _order(d)
    assert [len(y) for _, y in d.batched(7)] == [7, 3]
    assert d.head(3).n_examples == 3


def test_several_inputs_as_tuple_or_dict() -> None:
    a, b, y = torch.randn(6, 2), torch.randn(6, 3), torch.arange(6)
    for (xa, xb), ys in TensorData((a, b), y, 4):
        assert torch.equal(xa, a[ys])
        assert torch.equal(xb, b[ys])
    for x, ys in TensorData({"left": a, "right": b}, y, 4).order(torch.Generator().manual_seed(0)):
        assert torch.equal(x["left"], a[ys])
        assert torch.equal(x["right"], b[ys])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorData(torch.zeros(0, 2), torch.zeros(0)), "empty"),
        (lambda: TensorData(torch.zeros(3, 2), torch.zeros(4)), "one target per input"),
        (lambda: TensorData(torch.zeros(3, 2), torch.zeros(3), 0), "at least 1"),
        (lambda: TensorData((), torch.zeros(3)), "first axis"),
        (lambda: TensorData(torch.tensor(1.0), torch.tensor(1.0)), "first axis"),
    ],
)
def test_bad_tensors_are_refused(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_user_loaders_are_checked() -> None:
    pairs = [(torch.zeros(2, 1), torch.zeros(2))]
    assert as_splits((pairs, pairs), "mine").test is None
    assert as_splits([pairs, pairs, pairs], "mine").test is pairs
    assert as_splits(Splits(pairs, pairs), "mine").valid is pairs
    with pytest.raises(UsageError, match="mine: returned None"):
        as_splits(None, "mine")
    with pytest.raises(UsageError, match="mine: train is a generator, which can be read only once"):
        as_splits(((p for p in pairs), pairs), "mine")
    with pytest.raises(UsageError, match="mine: valid: the data set is empty"):
        as_splits((pairs, []), "mine")
    with pytest.raises(UsageError, match="must be pairs"):
        as_splits(([torch.zeros(3)], pairs), "mine")
    with pytest.raises(UsageError, match="train is a int"):
        as_splits((3, pairs), "mine")


def test_load_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sets.py").write_text(
        "import torch\nfrom secateur.data import TensorData\n"
        "def loaders():\n    d = TensorData(torch.zeros(4, 2), torch.zeros(4), 2)\n    return d, d\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert len(data.load("my_sets:loaders").train) == 2
    with pytest.raises(UsageError, match="no attribute 'nope'"):
        data.load("my_sets:nope")
    with pytest.raises(UsageError, match="no module named 'my_setz'"):
        data.load("my_setz:loaders")
    sys.modules.pop("my_sets")


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no set named 'minst'.*did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(UsageError, match="no set named 'imagenet'; known: digits, mnist"):
        data.spec("imagenet")
