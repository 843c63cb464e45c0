"""The net in integers in PyTorch and the engine: the same bits on every image, at every level of the processor."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.test_activations import BOTH, Digits, compressed, data, trained
from torch import Tensor, nn

from secateur.constraints.uniform import Uniform
from secateur.engine import InferenceSession, isas
from secateur.engine.inspect import inspect
from secateur.errors import UnsupportedError
from secateur.graph import activations
from secateur.testing import integers


class Many(nn.Module):
    """Depthwise and pointwise convolutions, ReLU6, a residual sum, a concatenation, three kinds of pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.deep, self.point = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 12, 1)
        self.left, self.right = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 5, 3, padding=1)
        self.act, self.mean, self.largest = nn.ReLU6(), nn.AvgPool2d(2), nn.MaxPool2d(3, 2, 1)
        self.last, self.head = nn.Conv2d(11, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.stem(x)))
        x = torch.relu(x + self.point(self.act(self.deep(x))))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], dim=1)
        x = self.largest(torch.relu(self.last(self.mean(x))))
        y: Tensor = self.head(x.mean(dim=(2, 3)))
        return y


def run(module: Any, x: Tensor) -> Tensor:
    """With a scale per output, as the weights hold it."""
    weights = {k: p.detach() for k, p in module.named_parameters() if p.dim() > 1}
    found = {k: Uniform(per="row").grid(w.flatten(1)) for k, w in weights.items()}
    return integers.run(module, x, {k: s for k, s in found.items() if s is not None})


@pytest.mark.parametrize("make", [Digits, Many])
def test_the_engine_gives_the_same_bits(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compressed(trained(make), quantize=BOTH)
    layers = inspect(found.files.sct)["layers"]
    assert all("s8_u8_s32" in row["kernel"] for row in layers if row["op"] in ("Conv", "Gemm"))
    train, valid = data()
    x = torch.cat([s.batch(i)[0] for s in (train, valid) for i in range(len(s))])
    assert len(x) == 1797
    wanted = run(found.model, x).numpy()
    for isa in isas():
        monkeypatch.setenv("SECATEUR_ISA", isa)
        said = InferenceSession(found.files.sct).run(None, {"x": x.numpy()})[0]
        assert np.array_equal(said, wanted), f"{isa}: {np.mean(said != wanted):.4f} of the numbers differ"
    with torch.no_grad():
        assert (found.model(x).argmax(1) == torch.from_numpy(wanted).argmax(1)).float().mean() > 0.99


def test_a_layer_by_hand() -> None:
    """Two inputs on a grid of 1/2, weights of 1/4: the sum and its bias are counted in eighths, then halves to even."""
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    made = activations.calls(net)
    grids = activations.find(made.module, [torch.zeros(1, 2)], ["0.weight", "2.weight"])
    module, _ = activations.rewrite(made, grids)
    for grid, scale in zip(grids, (0.5, 1.0), strict=True):
        module.get_buffer(grid.scale).fill_(scale)
    state = {"0.weight": [[0.25, 0.75]], "0.bias": [0.125], "2.weight": [[1.0]], "2.bias": [0.0]}
    module.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    x = torch.tensor([[1.6, 2.9], [0.2, 1.7], [-4.0, 0.0], [0.0, 0.5]])
    # Codes (3, 6), (0, 3), (-8, 0), (0, 1); sums 3 + 18 + 1 = 22, 10, -7, 4 eighths; 2.75, 1.25, -0.875, 0.5.
    assert run(module, x).flatten().tolist() == [3.0, 1.0, 0.0, 0.0]


def test_what_is_on_no_grid_is_refused() -> None:
    made = activations.calls(nn.Sequential(nn.Linear(40, 30)))
    module, _ = activations.rewrite(made, activations.find(made.module, [torch.zeros(1, 40)], ["0.weight"]))
    with pytest.raises(UnsupportedError, match="lie on no grid"):
        run(module, torch.zeros(1, 40))
