"""Statistics of batch-norms inside their scales and shifts: same answers, half the vectors, still accounted for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import secateur
from secateur import formats, graph
from secateur.export import norms, stored, written


def net() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.BatchNorm1d(16)
    )
    for m in made:
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            for p, low in ((m.weight, 0.5), (m.bias, -1.0), (m.running_mean, -1.0), (m.running_var, 0.2)):
                nn.init.uniform_(p, low, low + 2)
    return made.eval()


def tensors(data: bytes) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load_model_from_string(data).graph.initializer}


def state(module: nn.Module) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in module.state_dict().items()}


@pytest.fixture(scope="module")
def files() -> tuple[nn.Module, bytes, written.Written]:
    module = net()
    example = graph.settle(module, torch.rand(2, 1, 8, 8))
    return (
        module,
        written.exported_bytes(module, example),
        written.write(module, graph.trace(module, example), example),
    )


def test_the_written_net_answers_as_the_module_and_is_smaller(files) -> None:
    module, plain, both = files
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    for data in (both.onnx, both.sct):
        session = secateur.InferenceSession(data)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    sizes = {s.name: s.nbytes for s in formats.sections(both.sct)}
    assert max(sizes["1.running_mean"], sizes["1.running_var"]) <= 4
    assert len(both.sct) < len(formats.pack(plain)) - 40  # two vectors of 8 and two of 16 raw values are gone


def test_names_stay_and_statistics_are_none(files) -> None:
    module, plain, both = files
    found, before = tensors(both.onnx), tensors(plain)
    assert found.keys() == before.keys()
    assert not found["1.running_mean"].any()
    assert (found["5.running_var"] == 1).all()
    assert np.array_equal(found["0.weight"], before["0.weight"])
    assert module[1].running_mean.abs().sum() > 0  # the module keeps its own


def test_merging_twice_changes_nothing(files) -> None:
    _, plain, _ = files
    once = norms.merged(plain)
    assert norms.merged(once) == once


def test_a_norm_that_a_set_acts_on_stays_as_it_is(files) -> None:
    _, plain, _ = files
    found, before = tensors(norms.merged(plain, {"1.weight"})), tensors(plain)
    assert all(np.array_equal(found[f"1.{k}"], before[f"1.{k}"]) for k in ("weight", "bias", "running_mean"))
    assert not found["5.running_mean"].any()


def test_a_norm_used_twice_stays_as_it_is() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = net()[1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(torch.relu(self.norm(x)))

    module = Twice().eval()
    plain = written.exported_bytes(module, graph.settle(module, torch.rand(2, 8, 4, 4)))
    assert norms.merged(plain) == onnx.load_model_from_string(plain).SerializeToString(deterministic=True)


def test_a_changed_vector_is_told_from_a_merged_one(files) -> None:
    module, _, both = files
    good = stored.find(both.onnx, state(module))
    expected = norms.as_written(both.onnx, state(module))
    assert all(np.array_equal(v, expected[k]) for k, v in good.copies)
    assert not good.absent
    model = onnx.load_model_from_string(both.onnx)
    gamma = next(i for i in model.graph.initializer if i.name == "1.weight")
    moved = numpy_helper.to_array(gamma).copy()
    moved[3] = np.nextafter(moved[3], np.float32(9))
    gamma.CopyFrom(numpy_helper.from_array(moved, gamma.name))
    damaged = model.SerializeToString()
    other = [k for k, v in stored.find(damaged, state(module)).copies if not np.array_equal(v, expected[k])]
    assert other == ["1.weight"]


def test_sizes_of_candidates_are_those_of_the_written_file(files) -> None:
    _, _, both = files
    changed = net()
    with torch.no_grad():
        changed[1].running_mean.mul_(3)
        changed[1].weight[2] = 0
    example = graph.settle(changed, torch.rand(2, 1, 8, 8))
    asked = written.write(changed, graph.trace(changed, example), example)
    assert written.Template(both.onnx).nbytes(asked.module) == len(asked.sct)


def digits(a: np.ndarray) -> int:
    """Significant binary digits of the number that needs most."""
    mantissa = np.abs(np.frexp(a.astype(np.float64))[0])
    return next(n for n in range(54) if np.array_equal(mantissa * 2**n, np.floor(mantissa * 2**n)))


def test_where_bytes_count_vectors_have_eight_digits_in_module_and_file_alike(files) -> None:
    module, _, before = files
    example = graph.settle(module, torch.rand(2, 1, 8, 8))
    both = written.write(module, graph.trace(module, example), example, short=True)
    found, full = tensors(both.onnx), tensors(before.onnx)
    vectors = [k for k in found if k.endswith(("bias", "1.weight", "5.weight"))]
    assert len(vectors) == 6
    for k in vectors:
        assert digits(found[k]) <= 8 < digits(full[k])
        assert (np.abs(found[k] - full[k]) <= np.abs(full[k]) * 2.0**-8 * (1 + 1e-6)).all()
    assert np.array_equal(found["0.weight"], full["0.weight"])
    assert not stored.find(both.onnx, state(both.module)).absent
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        expected = both.module(x).numpy()
    session = secateur.InferenceSession(both.sct)
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert len(both.sct) < len(before.sct) - 80  # 80 values, more than a byte less for each
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), net().state_dict().values(), strict=True)
    )


def test_vectors_in_a_set_or_frozen_keep_their_digits() -> None:
    module = net()
    module[4].bias.requires_grad_(False)
    before = state(module)
    before = {k: v.copy() for k, v in before.items()}
    norms.shorten(module, {"1.weight"})
    after = state(module)
    assert {k for k in before if not np.array_equal(before[k], after[k])} == {"0.bias", "1.bias", "5.weight", "5.bias"}


@pytest.mark.parametrize("offset", [0.0, 1e4])  # a shift that is the small difference of two large numbers
def test_short_vectors_are_merged_short_whatever_the_statistics(offset: float) -> None:
    module = net()
    with torch.no_grad():
        module[1].running_mean += offset
        module[1].bias += offset
    norms.shorten(module)
    made = norms._merge(
        [t.detach().numpy() for t in (module[1].weight, module[1].bias)]
        + [t.numpy() for t in (module[1].running_mean, module[1].running_var)],
        1e-3,
    )
    assert digits(made[0]) <= 8
    assert digits(made[1]) <= 8
