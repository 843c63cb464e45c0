"""Programs of smaller pictures: where they are had, and what is believed by them."""

from __future__ import annotations

import torch
from torch import nn

from secateur import graph


def net(side: int, head: bool = False) -> tuple[nn.Module, torch.Tensor]:
    """Two convolutions; `head`: a layer written for this number of pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.Flatten()]
        model = nn.Sequential(*parts, *([nn.Linear(4 * (side // 2) ** 2, 2)] if head else []))
        return model.eval(), torch.randn(2, 3, side, side)


def test_large_pictures_have_a_thumbnail_of_the_same_calls() -> None:
    traced = graph.trace(*net(224))
    assert traced.thumbnail is not None
    assert [t.shape[-2:] for t in traced.thumbnail.program.example.values()] == [(56, 56)]
    assert [n.target for n in traced.thumbnail.program.calls] == [n.target for n in traced.program.calls]


def test_small_pictures_and_code_for_one_size_have_none() -> None:
    assert graph.trace(*net(64)).thumbnail is None
    assert graph.trace(*net(224, head=True)).thumbnail is None


def test_what_is_effective_is_the_same_by_it() -> None:
    model, x = net(224)
    traced = graph.trace(model, x)
    weights = {k: p.detach().clone() for k, p in model.named_parameters()}
    weights["0.weight"][2] = 0
    weights["2.weight"][:, 5] = 0
    whole = traced.flow(weights).effective
    assert all(torch.equal(v, whole[k]) for k, v in traced.effective(weights).items())
    assert not whole["0.weight"][5].any()


def test_a_price_believes_the_removal_that_a_proof_finds() -> None:
    for side in (32, 224):
        model, x = net(side)
        traced = graph.trace(model, x)
        weights = {k: p.detach().clone() for k, p in model.named_parameters()}
        weights["2.weight"][:, 5] = 0
        proven, surgery = graph.shrink(model, traced, weights)
        believed, same = graph.shrink(model, traced, weights, proof="of doubts")
        assert same == surgery
        assert surgery["edits"]
        for (k, a), (_, b) in zip(proven.state_dict().items(), believed.state_dict().items(), strict=True):
            assert torch.equal(a, b), k


def test_what_stays_as_it_is_is_not_run() -> None:
    model, x = net(32)
    traced = graph.trace(model, x)
    small, surgery = graph.shrink(model, traced, proof="of changes")
    assert surgery == graph.shrink(model, traced)[1]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in small.state_dict().items())


def test_the_last_masks_are_kept_and_known_by_the_values_of_the_weights() -> None:
    model, x = net(64)
    traced = graph.trace(model, x)
    weights = {k: p.detach().clone() for k, p in model.named_parameters()}
    first = traced.flow(weights)
    assert traced.flow({k: w.clone() for k, w in weights.items()}) is first
    name = next(k for k, w in weights.items() if w.dim() == 4)
    changed = {**weights, name: weights[name] * 0}
    assert traced.flow(changed) is not first
    second = traced.flow(changed)
    changed[name] += weights[name]  # written to since: the masks are not those of its values any more
    assert traced.flow(changed) is not second
    assert torch.equal(traced.flow(changed).effective[name], first.effective[name])
