"""Compress inside a training loop that stays yours: `Compressor` in the place where others would put a scheduler.

    python examples/own_loop.py [FOLDER]

Trains a digits classifier with a plain PyTorch loop, three lines of it Secateur's, and writes the run's files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from secateur import Compressor, Result, data, load, zoo

RECIPE = {
    "budget": {"nbytes": "30KB"},  # the dense file has 640 KB
    "constrain": [{"where": "*", "with": "topk"}],  # unstructured zeros, the budget spread over the layers
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.2},
}


def accuracy(model: nn.Module, batches: data.TensorData) -> float:
    """Fraction of right answers; the model comes back in the mode it had."""
    was = model.training
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    model.train(was)
    return right / batches.n_examples


def main(folder: Path, dense_epochs: int = 10, epochs: int = 24) -> Result:
    torch.manual_seed(0)
    splits = data.load("digits")
    model = zoo.digits_cnn()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(dense_epochs):  # an ordinary network first; yours is trained already
        for x, y in splits.train.order(torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
    print(f"dense: {accuracy(model, splits.test):.1%} of the test digits")

    total_steps = epochs * len(splits.train)
    compressor = Compressor(
        model,
        RECIPE,
        torch.zeros(2, 1, 8, 8),
        optimizer=optimizer,
        total_steps=total_steps,
        evaluate=lambda m: accuracy(m, splits.valid),
    )
    round_began = step = 0
    for epoch in range(epochs):
        for x, y in splits.train.order(torch.Generator().manual_seed(100 + epoch)):
            for group in optimizer.param_groups:  # your schedule: linear decay, restarted with every round
                group["lr"] = 2e-3 * max(0.05, 1 - (step - round_began) / (total_steps - round_began))
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y) + compressor.penalty()
            loss.backward()
            optimizer.step()
            compressor.step()
            step += 1
            if compressor.round_changed:
                round_began = step
    result = compressor.finalize()  # projected, cut, packed; raises when the budget is not met
    result.save(folder)

    small = load(folder, zoo.digits_cnn())  # from safetensors and the recorded surgery; no pickle
    print(f"compressed: {accuracy(small, splits.test):.1%}, {(folder / 'model.sct').stat().st_size:,} bytes")
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as temporary:
            main(Path(temporary))
