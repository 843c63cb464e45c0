"""The tiny nets run, and the same seed gives the same net."""

import pytest
import torch

from secateur.testing.nets import NETS, example


@pytest.mark.parametrize("name", sorted(NETS))
def test_runs_and_repeats(name: str) -> None:
    state = torch.random.get_rng_state()
    inputs = example(name)
    with torch.no_grad():
        first, again, other = (NETS[name](seed)(*inputs) for seed in (0, 0, 1))
    assert first.shape[0] == 2
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random state was touched"
