"""The data of the study `families`: what is told can be told, and the budgets of its file are a tenth."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from secateur import data
from secateur.data import Splits, TensorData, cifar10, sst2
from secateur.export import rebuild
from secateur.reproduce import families, plan, study

TASKS = plan.tasks_of(study.path("families"))


@pytest.fixture
def garments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve pictures in place of Fashion-MNIST, in no order of their own."""
    g = torch.Generator().manual_seed(0)
    part = TensorData(torch.rand(12, 1, 28, 28, generator=g), torch.arange(12) % 10, 4)
    monkeypatch.setattr(data, "load", lambda *_, **__: Splits(part, part, part))


@pytest.mark.usefixtures("garments")
def test_a_moving_picture_moves_as_its_target_says() -> None:
    x, y = families.moving().train.inputs, families.moving().train.targets
    assert x.shape == (12, 4, 1, 28, 28)
    assert len(set(y.tolist())) > 3
    ways = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for clip, way in zip(x, y.tolist(), strict=True):
        dy, dx = ways[way]
        for one, after in pairwise(clip):
            assert torch.equal(one.roll((2 * dy, 2 * dx), (1, 2)), after)


@pytest.mark.usefixtures("garments")
def test_noise_is_the_parts_own_and_the_same_at_every_call() -> None:
    one, two = families.noisy(), families.noisy()
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert torch.equal(one.train.targets, one.valid.targets)  # of the stand-in
    assert not torch.equal(one.train.inputs, one.valid.inputs)
    assert (one.train.inputs - one.train.targets).std() == pytest.approx(families.NOISE, rel=0.05)


def test_words_are_told_apart_by_their_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    part = [(["a", "fine", "film"], 1), (["fine"] * 60, 0)]
    monkeypatch.setattr(sst2, "sentences", lambda *_: [part, part, part])
    x = families.hashed().train.inputs
    assert x.shape == (2, 48)
    assert x[0].count_nonzero() == 5  # three words, two pairs
    assert x[0, 1] == x[1, 0]
    assert len(set(x[0, :5].tolist())) == 5
    assert (x >= 0).all()
    assert (x < families.BUCKETS).all()
    assert x[0, 0] == 1 + 0xE8B7BE43 % 8191  # the CRC-32 of "a"


def test_the_picture_is_four_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 32, 32, 3).numpy()
    monkeypatch.setattr(cifar10, "read_test", lambda *_, **__: (photos, None))
    splits = families.picture()
    x, y = splits.train.inputs, (splits.train.targets[:, 0] * 255).round()
    for i, (right, low) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        there = ((x[:, 0] > 0) == bool(right)) & ((x[:, 1] > 0) == bool(low))
        assert there.sum() == 1024
        assert (y[there] == i).all()


def test_a_loader_of_ones_own_gets_the_folder_it_asks_for() -> None:
    assert data.load("tests.reproduce.test_families:asking", "here").spec.name == "here"
    assert data.load("tests.reproduce.test_families:asking").spec.name == "none"
    assert data.load("tests.reproduce.test_families:not_asking", "here").spec is None


def asking(data_dir: str = "none") -> Splits:
    return Splits([(1, 1)], [(1, 1)], None, data.Spec(data_dir, (), (), (), ()))


def not_asking() -> Splits:
    return Splits([(1, 1)], [(1, 1)])


@pytest.mark.parametrize("task", TASKS)
def test_budgets_are_a_tenth_and_the_control_has_half_the_weights(task: str) -> None:
    found = plan.read(study.path("families"), task)
    nets = {c: rebuild.build_model(found.cells[c].plan["model"]) for c in ("dense", "small")}
    sizes = {c: sum(p.numel() for p in net.parameters()) for c, net in nets.items()}
    weights = sum(p.numel() for p in nets["dense"].parameters() if p.dim() > 1)
    budget = found.cells["compressed"].plan["recipe"]["budget"]["nbytes"]
    assert found.plan.n_weights == weights
    assert 0.09 * 4 * sizes["dense"] <= 1000 * float(budget.removesuffix("KB")) <= 0.0975 * 4 * sizes["dense"]
    assert 0.44 <= sizes["small"] / sizes["dense"] <= 0.57
    assert {c: x.plan["recipe"]["budget"]["nbytes"] for c, x in found.cells.items() if x.start} == dict.fromkeys(
        ("compressed", "one_shot", "narrow"), budget
    )
