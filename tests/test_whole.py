"""Heads and units: a run from recipe to files; what stays in place is said in plan, log and report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import secateur

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.HandedOverWarning")  # recurrent layers
SMALL = {"solver": {"name": "one_shot", "epochs": 1}, "baselines": [], "bench": {"seconds": 0.001}}


class Written(nn.Module):
    """Attention that reads the width of its result off its input, as many people write it; a small LSTM behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.rec, self.last = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)
        return self.last(self.rec(x + self.out(y))[0].mean(1))


class Torchs(Written):
    def __init__(self) -> None:
        super().__init__()
        del self.qkv, self.out
        self.attend = nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rec(x + self.attend(x, x, x, need_weights=False)[0])[0].mean(1))


def data() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 5, 8, generator=g), torch.randint(0, 3, (16,), generator=g)) for _ in range(4)]


def recipe(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"constrain": list(entries), **SMALL, **more}


HEADS = {"where": "*", "with": "heads", "level": {"heads": 3}}
UNITS = {"where": "rec", "with": "units", "level": {"units": 4}}


def test_a_plan_says_which_heads_stay_and_where_the_code_holds_them() -> None:
    torch.manual_seed(0)
    found = secateur.plan(Written(), data(), recipe=recipe(HEADS, UNITS), on_progress=False)
    runs = {row["constraint"]: row["runs"] for row in found["layers"]}
    assert runs == {"heads": "zero in place (stored only)", "units": "removed"}
    (note,) = [n for n in found["notes"] if "qkv" in n]
    assert "stored only" in note
    assert "test_whole.py" in note


def test_log_and_report_say_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, "secateur"):
        result = secateur.compress(Written(), data(), recipe=recipe(HEADS), on_progress=False)
    assert any("qkv.weight.heads" in r.message and "stored only" in r.message for r in caplog.records)
    assert any("qkv.weight.heads" in n for n in result.report["notes"])
    assert result.model.qkv.weight.shape == (24, 8)
    zero = (result.model.qkv.weight == 0).all(1)
    assert int(zero.sum()) == 6  # one head of two: its rows of queries, keys and values


def test_heads_and_units_leave_and_the_files_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = secateur.compress(Torchs(), data(), recipe=recipe(HEADS, UNITS), on_progress=False)
    model = result.model
    assert model.attend.in_proj_weight.shape == (18, 8)
    assert model.rec.hidden_size == 4
    assert result.report["verify"]["agree"]
    result.save(tmp_path / "run")
    x = data()[0][0]
    loaded = secateur.load(tmp_path / "run", Torchs())
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    answer = secateur.InferenceSession(tmp_path / "run" / "model.onnx").run(None, {"x": x.numpy()})[0]
    assert torch.allclose(torch.from_numpy(answer), model(x).detach(), atol=1e-5)


def test_a_budget_of_crossbars_is_kept() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3))
    g = torch.Generator().manual_seed(0)
    rows = [(torch.randn(32, 16, generator=g), torch.randint(0, 3, (32,), generator=g)) for _ in range(4)]
    asked = {"where": "2", "with": {"name": "crossbar", "cut": "arrays"}}
    report = secateur.compress(net, rows, recipe=recipe(asked), budget={"crossbars": 4}, on_progress=False).report
    assert report["dense"]["crossbars"] == 5  # 128 x 16: two; 128 x 128: two; 3 x 128: one
    assert report["compressed"]["crossbars"] <= 4
    assert report["budget"][0]["met"]
