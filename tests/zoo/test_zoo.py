"""The zoo: exact weight counts, traceability, pretrained weights that load and classify."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateur import data, zoo
from secateur.errors import FormatError, UsageError

NAMES = sorted(zoo.MODELS)
HAS_WEIGHTS = os.environ.get("SECATEUR_DATA") and (Path(os.environ["SECATEUR_DATA"]) / "weights").is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_weight_count_and_output_shape(name: str) -> None:
    entry = zoo.MODELS[name]
    net = entry.build().eval()
    assert sum(p.numel() for p in net.parameters() if p.ndim > 1) == entry.n_weights
    with torch.no_grad():
        assert net(torch.zeros(3, *entry.input_shape)).shape == (3, 10)
    assert getattr(zoo, name) is entry.build
    assert entry.input_shape == data.spec(entry.data).shape


@pytest.mark.parametrize("name", ["digits_cnn", "lenet300", "lenet5", "resnet20"])
def test_is_traced_whole_with_any_batch_size(name: str) -> None:
    entry = zoo.MODELS[name]
    net = entry.build().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (torch.zeros(2, *entry.input_shape),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, *entry.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), net(x))


def test_weight_counts_are_those_of_the_papers() -> None:
    sizes = {n: p.numel() for n, p in zoo.lenet5().named_parameters() if p.ndim > 1}
    assert sizes == {"conv1.weight": 500, "conv2.weight": 25_000, "fc1.weight": 400_000, "fc2.weight": 5_000}
    assert sum(p.numel() for p in zoo.resnet20().parameters()) == 269_722  # He et al.: 0.27M
    assert sum(p.numel() for p in zoo.resnet56().parameters()) == 853_018  # 0.85M
    assert zoo.MODELS["digits_cnn"].n_weights >= 150_000


def test_caffe_lenet_to_the_letter_has_one_relu() -> None:
    assert sum(isinstance(m, nn.ReLU) for m in zoo.lenet5(conv_relu=False)) == 1
    assert sum(isinstance(m, nn.ReLU) for m in zoo.lenet5()) == 3


def test_narrow_lenets_have_about_as_many_weights_as_pruned_ones() -> None:
    sizes = [
        sum(p.numel() for p in net.parameters() if p.ndim > 1) for net in (zoo.lenet5(width=0.16), zoo.lenet300(0.04))
    ]
    assert sizes == [4 * 25 + 8 * 4 * 25 + 128 * 80 + 80 * 10, 784 * 12 + 12 * 4 + 4 * 10]
    assert zoo.lenet5(width=0.16)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_shortcut_is_every_second_pixel_between_zero_channels() -> None:
    x = torch.randn(2, 16, 8, 8)
    y = zoo.resnet20().layer2[0].shortcut(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_inner_channels_of_a_block_can_be_removed() -> None:
    net = zoo.resnet20().eval()
    block = net.layer2[0]
    with torch.no_grad():
        for tensor in (block.bn1.weight, block.bn1.bias):
            tensor[5:] = 0
    x = torch.randn(2, 3, 32, 32)
    want = net(x)
    small, norm = nn.Conv2d(16, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5)
    small.weight = nn.Parameter(block.conv1.weight[:5])
    for part in ("weight", "bias"):
        setattr(norm, part, nn.Parameter(getattr(block.bn1, part)[:5]))
    last = nn.Conv2d(5, 32, 3, padding=1, bias=False)
    last.weight = nn.Parameter(block.conv2.weight[:, :5])
    block.conv1, block.bn1, block.conv2 = small, norm, last
    torch.testing.assert_close(net.eval()(x), want)


@pytest.mark.data
@pytest.mark.skipif(not HAS_WEIGHTS, reason="SECATEUR_DATA is not set or holds no weights/")
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_pretrained_weights_load_whole(name: str) -> None:
    net = getattr(zoo, name)(pretrained=True)
    assert net.bn1.running_var.min() > 0
    assert not torch.equal(net.bn1.running_mean, torch.zeros(16))
    path = Path(os.environ["SECATEUR_DATA"]) / "weights" / f"{name}.safetensors"
    other = getattr(zoo, name)()
    zoo.load_weights(other, path)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def _stored(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = _stored(tmp_path, {"module.fc9.weight": torch.zeros(2)})
    with pytest.raises(UsageError, match=r"another model; missing: fc1\.weight.*not in the model: fc9\.weight"):
        zoo.load_weights(zoo.lenet300(), path)


def test_wrong_shape_and_nan_are_refused(tmp_path: Path) -> None:
    good = {n: p.detach().clone() for n, p in zoo.lenet300().named_parameters()}
    with pytest.raises(UsageError, match=r"fc3\.bias is \[9\], the model needs \[10\]"):
        zoo.load_weights(zoo.lenet300(), _stored(tmp_path, good | {"fc3.bias": torch.zeros(9)}))
    bad = good["fc3.bias"].clone()
    bad[3] = float("nan")
    with pytest.raises(FormatError, match=r"fc3\.bias holds NaN"):
        zoo.load_weights(zoo.lenet300(), _stored(tmp_path, good | {"fc3.bias": bad}))


@pytest.mark.parametrize("raw", [b"", b"\x80\x02}q\x00.", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0not json at all!"])
def test_damaged_weights_file_is_a_format_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        zoo.load_weights(zoo.lenet300(), path)


def test_missing_weights_say_where_they_were_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    with pytest.raises(UsageError, match=r"set SECATEUR_DATA .*weights/resnet20\.safetensors"):
        zoo.resnet20(pretrained=True)
    with pytest.raises(UsageError, match="put the file there"):
        zoo.resnet20(pretrained=True, data_dir=tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        zoo.resnet20(pretrained=True, data_dir=tmp_path / "absent")
    with pytest.raises(UsageError, match="cannot be read"):
        zoo.load_weights(zoo.lenet300(), tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["fashion_resnet", "resnet20", "speech_cnn"])
def test_a_narrow_form_has_fewer_channels_in_multiples_of_four(name: str) -> None:
    entry = zoo.MODELS[name]
    for width in (0.7, 0.5, 0.25):
        net = entry.build(width=width).eval()
        n = sum(p.numel() for p in net.parameters() if p.ndim > 1)
        assert 0.8 * width**2 < n / entry.n_weights < 1.3 * width**2
        assert all(m.out_channels % 4 == 0 for m in net.modules() if isinstance(m, nn.Conv2d))
        with torch.no_grad():
            assert net(torch.zeros(3, *entry.input_shape)).shape == (3, 10)
