"""A network with two inputs, given by name: the left and the right half of a digit, each through its own layer.

    python examples/two_inputs.py

`train` yields ({"left": ..., "right": ...}, labels); the exported file has two inputs of these names.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import InferenceSession, Result, compress, data
from secateur.data import TensorData


class TwoHalves(nn.Module):
    """Each half through its own linear layer, added, then a common classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.from_left = nn.Linear(32, 96)
        self.from_right = nn.Linear(32, 96)
        self.relu = nn.ReLU()
        self.classify = nn.Linear(96, 10)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.classify(self.relu(self.from_left(left) + self.from_right(right)))


def halves(whole: TensorData) -> TensorData:
    """[N, 1, 8, 8] images as two inputs [N, 32]."""
    left, right = whole.inputs[..., :4].flatten(1), whole.inputs[..., 4:].flatten(1)
    return TensorData({"left": left, "right": right}, whole.targets, whole.batch_size)


def main() -> Result:
    torch.manual_seed(0)
    splits = data.load("digits")
    train, valid, test = (halves(part) for part in (splits.train, splits.valid, splits.test))
    net = TwoHalves()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(15):
        for inputs, labels in train.order(torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            cross_entropy(net(**inputs), labels).backward()
            optimizer.step()

    result = compress(
        net.eval(),
        train,
        valid=valid,
        recipe={
            "constrain": [{"where": "*", "with": "topk"}],
            "solver": {"name": "gradual", "epochs": 15},
            "bench": {"seconds": 0.2},
        },
        budget={"nbytes": "4KB"},
    )
    session = InferenceSession(result.files.sct)
    feeds = {name: value.numpy() for name, value in test.inputs.items()}
    answers = np.concatenate(session.run(None, feeds)).argmax(1)
    right = float((answers == test.targets.numpy()).mean())
    print(f"inputs of the packed file: {[item.name for item in session.get_inputs()]}")
    print(f"{len(result.files.sct):,} bytes, {right:.1%} of the test digits")
    return result


if __name__ == "__main__":
    main()
