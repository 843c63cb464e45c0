"""Masks of torch.nn.utils.prune, both ways, and a net that goes on from its zeros."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from secateur import Compressor, compress
from secateur.errors import UsageError
from secateur.integrations.torch_prune import export_masks, import_masks


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    return [(x, x[:, :3].argmax(1))] * 4


def recipe(**solver: object) -> dict:
    return {
        "constrain": [{"where": "*", "with": "topk"}],
        "budget": {"nnz": 8},
        "solver": {"name": "gradual", **solver},
        "bench": {"seconds": 0.02},
    }


def single() -> nn.Sequential:
    """No unit inside that could be dead and removed; half of its weights are masked."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 3))
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


def pruned() -> nn.Sequential:
    model = net()
    for layer, amount in ((model[0], 0.5), (model[2], 0.25)):
        prune.random_unstructured(layer, "weight", amount)
    return model


def test_masks_become_zeros_and_zeros_masks() -> None:
    model, x = pruned(), torch.randn(5, 8)
    want = model(x)
    assert import_masks(model) == {"0.weight": 128, "2.weight": 24}
    assert {k for k, _ in model.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    torch.testing.assert_close(model(x), want, rtol=0, atol=0)
    zeros = model[0].weight == 0
    assert export_masks(model) == ["0.weight", "2.weight"]
    assert prune.is_pruned(model)
    torch.testing.assert_close(model(x), want, rtol=0, atol=0)
    prune.l1_unstructured(model[0], "weight", 0.5)  # torch's own tool goes on: of what was left
    assert int((model[0].weight != 0).sum()) == 64
    assert bool((model[0].weight[zeros] == 0).all())


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no such parameter.*import_masks first"):
        export_masks(pruned(), ["0.weight"])


@pytest.mark.parametrize("solver", ["gradual", "admm", "sr_ste"])
@pytest.mark.parametrize("keep", [True, False])
def test_compress_goes_on_from_zeros_only_if_asked(solver: str, keep: bool) -> None:
    model, data = single(), batches()
    zero = model[0].weight == 0
    how = recipe(name=solver, epochs=12, keep_zeros=keep) | {"training": {"lr": 0.03}}
    found = compress(model, train=data, valid=data, recipe=how, example_inputs=torch.zeros(2, 8))
    left = found.model[0].weight != 0
    assert int(left.sum()) == 8
    assert bool(left[zero].any()) != keep


def test_zeros_inside_kept_blocks_stay_to_the_end() -> None:
    """Through polish and snap, in our loop and in one's own."""
    model, data = single(), batches()
    zero = model[0].weight == 0
    sets = [{"name": "blocks", "rows": 1, "cols": 2}, {"name": "uniform", "min_bits": 4}]
    how = recipe(name="rigl", epochs=6, keep_zeros=True) | {"constrain": [{"where": "*", "with": sets}]}
    how |= {"budget": {"nnz": 18}, "training": {"lr": 0.03}}
    ours = compress(model, train=data, valid=data, recipe=how, example_inputs=torch.zeros(2, 8)).model[0].weight
    import_masks(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    compressor = Compressor(model, how, torch.zeros(2, 8), optimizer=optimizer, total_steps=24)
    for x, y in data * 6:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        compressor.step()
    for w in (ours, compressor.finalize().model[0].weight):
        assert bool(w.any())
        assert not bool(w[zero].any())


@pytest.mark.parametrize("cut", [None, 10])
def test_a_compressor_keeps_zeros_through_a_resume_and_old_moments(cut: int | None) -> None:
    model, (x, y) = single(), batches()[0]
    assert import_masks(model) == {"0.weight": 12}
    zero = model[0].weight == 0
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for p in model.parameters():  # as an optimizer that was in use before
        moments = {"exp_avg": torch.ones_like(p), "exp_avg_sq": torch.ones_like(p)}
        optimizer.state[p] = {"step": torch.tensor(9.0), **moments}

    def made() -> Compressor:
        how = recipe(keep_zeros=True)
        return Compressor(model, how, torch.zeros(2, 8), optimizer=optimizer, total_steps=30)

    compressor = made()
    for step in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        compressor.step()
        if step == cut:
            state = compressor.state_dict()
            compressor = made()
            compressor.load_state_dict(state)
    left = compressor.finalize().model[0].weight != 0
    assert int(left.sum()) == 8
    assert not bool(left[zero].any())
